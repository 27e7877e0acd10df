"""The development server over real HTTP on loopback: every endpoint and every status."""

import asyncio
import base64
import contextlib
import http.client
import socket
import struct
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
import pytest
from aiohttp import web

from supervisor.devserver.app import DevServer, DevServerSettings, HangUp, LoseAnswer
from supervisor.devserver.errors import Invalid, Unknown
from tests.devserver_fixtures import PROJECT, Caller, calls_named, running, spec

FENCE = {"worker_id": "w", "attempt": 1}
STALE = {"worker_id": "thief", "attempt": 1}


@pytest.fixture
async def served():
    async with running() as pair:
        yield pair


@pytest.fixture
async def server(served):
    return served[0]


@pytest.fixture
async def caller(served):
    return served[1]


async def claimed(server: DevServer, caller: Caller, *steps: dict[str, Any], **rest: Any) -> dict[str, Any]:
    await server.start_run(PROJECT, spec(*steps), **rest)
    return await caller.claim()


# The four calls


async def test_the_four_calls_of_a_worker(server, caller):
    run_id = await server.start_run(PROJECT, spec({"parameters": {"n": "${inputs.n}"}}), inputs={"n": 1}, queue="q")

    job = await caller.claim(queues=["q"], actions=["work"], worker_name="box", worker_version="1", wait_seconds=1)
    heartbeat = await caller.post(f"jobs/{job['job_id']}/heartbeat", FENCE)
    events = await caller.post(
        f"jobs/{job['job_id']}/events", FENCE | {"events": [{"type": "a.b", "payload": {"x": 1}}]}
    )
    completion = await caller.complete(job, result_b64=base64.b64encode(b'{"y":2}').decode())

    assert job == {
        "job_id": server.jobs(run_id)[0].id,
        "run_id": run_id,
        "workflow_name": "flow",
        "step_name": "step1",
        "action": "work",
        "parameters": {"n": 1},
        "attempt": 1,
        "queue": "q",
        "heartbeat_interval_seconds": 10,
    }
    assert heartbeat == (200, {"ok": True, "directives": {"should_cancel": False}})
    assert events == (204, None)
    assert completion == (204, None)
    assert server.run(run_id).result == b'{"y":2}'
    assert server.events(run_id) == [{"kind": "custom", "type": "a.b", "job_id": job["job_id"], "data": {"x": 1}}]


async def test_the_guides_requests_as_another_client_sends_them(server):
    await server.start_run(PROJECT, spec())

    def walk() -> list[int]:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
        headers = {"Authorization": "Bearer mbx_test", "Content-Type": "application/json"}

        def post(path: str, body: bytes) -> tuple[int, bytes]:
            connection.request("POST", f"/v1/projects/demo/jobs/{path}", body, headers)
            response = connection.getresponse()
            return response.status, response.read()

        first, claim = post("claim", b'{"worker_id":"w1","queues":["default"],"wait_seconds":20}')
        job = msgspec.json.decode(claim)["job_id"]
        fence = b'"worker_id":"w1","attempt":1'
        statuses = [
            first,
            post(f"{job}/heartbeat", b"{%b}" % fence)[0],
            post(f"{job}/events", b'{%b,"events":[{"type":"progress","payload":{"pct":50}}]}' % fence)[0],
            post(f"{job}/complete", b'{%b,"status":"completed","result_b64":"eyJvayI6dHJ1ZX0="}' % fence)[0],
        ]
        connection.close()
        return statuses

    assert await asyncio.to_thread(walk) == [200, 200, 204, 204]


async def test_an_interval_that_is_not_whole_is_a_fraction():
    async with running(heartbeat_interval=0.25) as (server, caller):
        job = await claimed(server, caller)

        assert job["heartbeat_interval_seconds"] == 0.25
        assert server.job(job["job_id"]).expires_at == pytest.approx(server.job(job["job_id"]).claimed_at + 0.75)


async def test_an_empty_window_is_204(caller):
    assert await caller.post("jobs/claim", {"worker_id": "w"}) == (204, None)


async def test_a_repeated_complete_is_accepted(server, caller):
    job = await claimed(server, caller)

    assert await caller.complete(job, result_b64="MQ==") == (204, None)
    assert await caller.complete(job, result_b64="MQ==") == (204, None)
    assert (await caller.complete(job, result_b64="Mg=="))[0] == 409


@pytest.mark.parametrize(
    ("call", "rest"),
    [("heartbeat", {}), ("events", {"events": [{"type": "a", "payload": {}}]}), ("complete", {"status": "failed"})],
)
async def test_a_stale_fence_is_409_and_an_unknown_job_404(server, caller, call, rest):
    job = await claimed(server, caller)

    stale = await caller.post(f"jobs/{job['job_id']}/{call}", STALE | rest)
    unknown = await caller.post(f"jobs/job_0/{call}", FENCE | rest)

    assert (stale[0], stale[1]["error"]["code"]) == (409, "fence_refused")
    assert (unknown[0], unknown[1]["error"]["code"]) == (404, "not_found")


async def test_a_job_can_be_looked_up(server, caller):
    job = await claimed(server, caller)

    status, found = await caller.get(f"jobs/{job['job_id']}")

    assert status == 200
    assert (found["status"], found["claimed_by"], found["attempt"]) == ("claimed", "w", 1)
    assert (await caller.get("jobs/job_0"))[0] == 404


async def test_ids_are_percent_encoded_in_paths():
    async with running(new_id=lambda kind: f"{kind}/ä b%2F") as (server, caller):
        job = await claimed(server, caller)
        path = f"/v1/projects/{PROJECT}/jobs/{quote(job['job_id'], safe='')}"

        def status_of_heartbeat() -> int:
            connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
            connection.request(
                "POST", f"{path}/heartbeat", msgspec.json.encode(FENCE), {"Authorization": "Bearer mbx_test"}
            )
            status = connection.getresponse().status
            connection.close()
            return status

        assert job["job_id"] == "job/ä b%2F"
        assert await asyncio.to_thread(status_of_heartbeat) == 200


# What is refused


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b"{}",
        b'{"worker_id": ""}',
        b'{"worker_id": 1}',
        b'{"worker_id": "w", "concurrency": 1}',
        b'{"worker_id": "w", "wait_seconds": 31}',
        b'{"worker_id": "w", "wait_seconds": -1}',
        b'{"worker_id": "w", "wait_seconds": 0.5}',
        b'{"worker_id": "w", "actions": "work"}',
    ],
)
async def test_a_malformed_claim_is_400(caller, body):
    status, answer = await caller.post("jobs/claim", raw=body)

    assert status == 400
    assert answer["error"].keys() == {"code", "message"}


@pytest.mark.parametrize(
    "rest",
    [
        {},
        {"events": []},
        {"events": [{"type": "a", "payload": {}}] * 101},
        {"events": [{"type": "", "payload": {}}]},
        {"events": [{"type": "a" * 65, "payload": {}}]},
        {"events": [{"type": "a b", "payload": {}}]},
        {"events": [{"type": "a\n", "payload": {}}]},
        {"events": [{"type": "mobius.progress", "payload": {}}]},
        {"events": [{"type": "a", "payload": []}]},
        {"events": [{"type": "a"}]},
        {"events": [{"type": "a", "payload": {}, "level": 1}]},
        {"events": [{"type": "a", "payload": {}}], "attempt": 0},
    ],
)
async def test_malformed_events_are_400(server, caller, rest):
    job = await claimed(server, caller)

    assert (await caller.post(f"jobs/{job['job_id']}/events", FENCE | rest))[0] == 400


async def test_one_bad_event_keeps_back_the_whole_batch(server, caller):
    job = await claimed(server, caller)
    good, bad = {"type": "a", "payload": {}}, {"type": "mobius.x", "payload": {}}

    await caller.post(f"jobs/{job['job_id']}/events", FENCE | {"events": [good, bad]})

    assert server.events(job["run_id"]) == []


async def test_a_long_history_is_told_whole(server, caller):
    job = await claimed(server, caller)
    batch = [{"type": "tick", "payload": {"n": n}} for n in range(100)]
    for _ in range(11):
        await caller.post(f"jobs/{job['job_id']}/events", FENCE | {"events": batch})
    await caller.complete(job)

    told = frames(await stream_of(caller, f"runs/{job['run_id']}/events"))

    assert len(server.events(job["run_id"])) == 1100
    assert [frame["type"] for frame in told].count("custom") == 1100


async def test_payloads_have_at_most_16_kib(server, caller):
    job = await claimed(server, caller)
    path = f"jobs/{job['job_id']}/events"
    fitting = {"type": "a", "payload": {"x": "é" * ((16 * 1024 - len('{"x":""}')) // 2)}}
    too_big = {"type": "a", "payload": {"x": fitting["payload"]["x"] + "y"}}

    assert await caller.post(path, FENCE | {"events": [fitting] * 100}) == (204, None)
    assert (await caller.post(path, FENCE | {"events": [fitting, too_big]}))[0] == 413
    assert len(server.events(job["run_id"])) == 100


@pytest.mark.parametrize(
    "rest",
    [
        {},
        {"status": "cancelled"},
        {"status": "completed", "result_b64": "not base64"},
        {"status": "completed", "result_b64": "YWI"},
        {"status": "completed", "result": 1},
    ],
)
async def test_a_malformed_complete_is_400(server, caller, rest):
    job = await claimed(server, caller)

    assert (await caller.post(f"jobs/{job['job_id']}/complete", FENCE | rest))[0] == 400
    assert server.job(job["job_id"]).status == "claimed"


async def test_a_body_beyond_the_limit_is_413():
    async with running(max_body=1000) as (server, caller):
        job = await claimed(server, caller)

        status, answer = await caller.complete(job, result_b64="AAAA" * 1000)

        assert status == 413
        assert answer["error"].keys() == {"code", "message"}
        assert calls_named(server, "complete")[0].status == 413


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc"])
async def test_a_call_without_a_key_is_401(server, header):
    headers = {} if header is None else {"Authorization": header}
    async with aiohttp.ClientSession(server.url, headers=headers) as session:
        status, answer = await Caller(session).get("runs")

    assert status == 401
    assert answer["error"]["code"] == "unauthorized"


@pytest.mark.parametrize("key", ["mbx_secret", "demo/mbx_secret", "mbx_secret.demo"])
async def test_a_demanded_key_is_compared_as_it_is(key):
    async with running(api_key=key) as (server, stranger):
        async with aiohttp.ClientSession(server.url, headers={"Authorization": f"Bearer {key}"}) as session:
            assert (await Caller(session).get("runs"))[0] == 200
        assert (await stranger.get("runs"))[0] == 401


@pytest.mark.parametrize("handle", ["Demo", "-demo", "a--b", "a_b"])
async def test_what_is_no_handle_is_no_project(server, caller, handle):
    caller.project = handle

    assert (await caller.post("jobs/claim", {"worker_id": "w"}))[0] == 404


async def test_projects_come_into_being_when_they_are_asked_for(server, caller):
    caller.project = "brand-new-1"

    assert (await caller.post("jobs/claim", {"worker_id": "w"}))[0] == 204
    assert server.projects == {"brand-new-1"}


async def test_a_fixed_set_of_projects_is_not_extended():
    async with running(projects=frozenset({"known"})) as (server, caller):
        assert (await caller.post("jobs/claim", {"worker_id": "w"}))[0] == 404
        caller.project = "known"
        assert (await caller.post("jobs/claim", {"worker_id": "w"}))[0] == 204
        assert server.projects == {"known"}


async def test_other_paths_and_methods_have_errors_of_the_same_form(server, caller):
    missing = await caller.get("nothing")
    async with caller.session.put(f"/v1/projects/{PROJECT}/runs") as response:
        wrong = response.status, await response.json()

    assert (missing[0], missing[1]["error"]["code"]) == (404, "not_found")
    assert (wrong[0], wrong[1]["error"]["code"]) == (405, "method_not_allowed")


# Long polls


async def test_a_waiting_poll_gets_the_job_that_appears(server, caller):
    async with asyncio.TaskGroup() as group:
        poll = group.create_task(caller.claim(wait_seconds=30))
        await server.until(lambda: calls_named(server, "claim") or None)
        await server.start_run(PROJECT, spec())

    assert poll.result()["action"] == "work"


async def test_a_waiting_poll_gets_the_retry_when_its_backoff_elapses(server, caller):
    job = await claimed(server, caller, {"retry": [{"max_retries": 1, "base_delay": "50ms"}]})
    await caller.complete(job, "failed", error_type="Boom", error_message="no")

    again = await caller.claim(wait_seconds=30)

    assert (again["job_id"], again["attempt"]) == (job["job_id"], 2)


async def test_a_waiting_poll_gets_the_job_whose_lease_ran_out():
    async with running(lease_ttl=0.1) as (server, caller):
        job = await claimed(server, caller, {"retry": [{"max_retries": 1}]})

        again = await caller.claim("other", wait_seconds=30)

        assert (again["job_id"], again["attempt"]) == (job["job_id"], 2)
        assert (await caller.complete(job))[0] == 409


async def test_a_lease_that_runs_out_for_good_fails_the_run():
    async with running(lease_ttl=0.1) as (server, caller):
        job = await claimed(server, caller)

        await server.until(lambda: server.run(job["run_id"]).status == "failed")

        assert server.job(job["job_id"]).error_type == "liveness_timeout"


async def test_heartbeats_keep_a_lease(server, caller):
    job = await claimed(server, caller)
    before = server.job(job["job_id"]).expires_at

    await caller.post(f"jobs/{job['job_id']}/heartbeat", FENCE)

    assert server.job(job["job_id"]).expires_at > before


async def test_polls_are_served_in_the_order_in_which_they_came(server, caller):
    async with asyncio.TaskGroup() as group:
        polls = []
        for number in range(3):
            polls.append(group.create_task(caller.claim(f"w{number}", wait_seconds=30)))
            await server.until(lambda count=number + 1: len(calls_named(server, "claim")) == count)
        runs = [await server.start_run(PROJECT, spec()) for _ in range(3)]

    assert [poll.result()["run_id"] for poll in polls] == runs


async def test_a_poll_does_not_take_what_it_did_not_ask_for(server, caller):
    async with asyncio.TaskGroup() as group:
        picky = group.create_task(caller.claim("picky", actions=["rare"], wait_seconds=30))
        await server.until(lambda: calls_named(server, "claim") or None)
        await server.start_run(PROJECT, spec())
        other = await caller.claim("other")
        await server.start_run(PROJECT, spec({"action": "rare"}))

    assert other["action"] == "work"
    assert picky.result()["action"] == "rare"


def poll_by_hand(server: DevServer) -> socket.socket:
    """A waiting claim over a bare socket, to be closed as the test likes."""
    client = socket.create_connection(server.url.removeprefix("http://").split(":"))
    body = b'{"worker_id":"gone","wait_seconds":30}'
    head = b"POST /v1/projects/demo/jobs/claim HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
    client.sendall(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
    return client


async def test_a_client_that_hung_up_gets_no_lease(server, caller):
    client = poll_by_hand(server)
    await server.until(lambda: calls_named(server, "claim") or None)
    client.close()
    await server.until(lambda: calls_named(server, "claim")[0].answered_at)

    run_id = await server.start_run(PROJECT, spec())

    assert calls_named(server, "claim")[0].status is None
    assert server.jobs(run_id)[0].status == "pending"
    assert (await caller.claim())["attempt"] == 1


async def test_a_lease_whose_answer_cannot_be_written_is_given_back(server, caller):
    client = poll_by_hand(server)
    await server.until(lambda: calls_named(server, "claim") or None)

    # Closed with a reset, and the job appears before the loop has had a chance to notice.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    run_id = await server.start_run(PROJECT, spec())

    assert server.jobs(run_id)[0].claimed_by == "gone"
    await server.until(lambda: server.jobs(run_id)[0].status == "pending")
    assert (await caller.claim())["attempt"] == 1


async def test_a_closing_server_sends_waiting_polls_and_streams_home():
    async with contextlib.AsyncExitStack() as stack:
        server, caller = await stack.enter_async_context(running())
        async with asyncio.TaskGroup() as group:
            poll = group.create_task(caller.post("jobs/claim", {"worker_id": "w", "wait_seconds": 30}))
            stream = group.create_task(caller.session.get(f"/v1/projects/{PROJECT}/runs/events"))
            await server.until(lambda: len(server.calls) == 2)
            await stream
            await server._send_home(None)

        assert poll.result() == (204, None)
        assert await (await stream).read() == b""


# Runs


async def test_a_run_is_started_over_http(server, caller):
    body = {"spec": spec(), "inputs": {"a": 1}, "metadata": {"m": "1"}, "tags": {"t": "2"}, "external_id": "x"}

    status, run = await caller.post("runs", body)

    assert status == 202
    assert (run["status"], run["queue"], run["job_counts"]) == (
        "active",
        "default",
        {"ready": 1, "scheduled": 0, "claimed": 0},
    )
    assert (run["inputs"], run["metadata"], run["tags"], run["external_id"]) == ({"a": 1}, {"m": "1"}, {"t": "2"}, "x")
    assert run["wait_summary"]["next_wake_at"] is None
    assert (await caller.post("runs", body | {"mode": "inline"}))[1]["id"] == run["id"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, 400),
        ({"spec": {"name": "f", "steps": []}}, 400),
        ({"spec": spec({"each": {"items": "x"}})}, 400),
        ({"spec": spec({"retry": [{"base_delay": "soon"}]})}, 400),
        ({"spec": spec({"parameters": {"x": "${env.HOME}"}})}, 400),
        ({"spec": spec(), "surprise": 1}, 400),
        ({"spec": spec(), "mode": "other"}, 400),
        ({"mode": "saved", "definition_id": "d"}, 404),
    ],
)
async def test_a_run_that_cannot_start_is_refused(caller, body, expected):
    assert (await caller.post("runs", body))[0] == expected


async def test_a_run_waits_visibly_for_its_retry(server, caller):
    job = await claimed(server, caller, {"retry": [{"base_delay": "1h"}]})
    await caller.complete(job, "failed", error_type="Boom", error_message="no")

    _, run = await caller.get(f"runs/{job['run_id']}")

    assert run["paths"] == [{"path_id": "main", "state": "waiting"}]
    assert run["job_counts"] == {"ready": 0, "scheduled": 1, "claimed": 0}
    assert run["wait_summary"]["kind_counts"] == {"retry": 1}
    assert run["wait_summary"]["next_wake_at"] == run["jobs"][0]["scheduled_at"]


async def test_a_failed_run_says_why(server, caller):
    job = await claimed(server, caller)
    await caller.complete(job, "failed", error_type="Boom", error_message="no")

    _, run = await caller.get(f"runs/{job['run_id']}")

    assert (run["status"], run["error_type"], run["error_message"]) == ("failed", "job_failed", "step step1: Boom: no")
    assert run["errors"][0]["error_type"] == "job_failed"
    assert (run["jobs"][0]["error_type"], run["jobs"][0]["last_error"]) == ("Boom", "no")


async def test_a_runs_jobs_are_listed(server, caller):
    job = await claimed(server, caller)

    status, jobs = await caller.get(f"runs/{job['run_id']}/jobs")

    assert status == 200
    assert [item["id"] for item in jobs["items"]] == [job["job_id"]]
    assert (await caller.get("runs/run_0/jobs"))[0] == 404


async def test_runs_are_listed_in_pages_and_by_what_they_are(server, caller):
    ids = [await server.start_run(PROJECT, spec(), queue=f"q{number}") for number in range(3)]

    _, first = await caller.get("runs", limit=2)
    _, second = await caller.get("runs", limit=2, cursor=first["next_cursor"])
    _, chosen = await caller.get("runs", queue="q1", status="active", workflow_type="flow")

    assert [run["id"] for run in first["items"]] == ids[:0:-1]
    assert ([run["id"] for run in second["items"]], second["has_more"], "next_cursor" in second) == (
        ids[:1],
        False,
        False,
    )
    assert [run["id"] for run in chosen["items"]] == [ids[1]]
    assert (await caller.get("runs", limit="many"))[0] == 400
    assert (await caller.get("runs", colour="red"))[0] == 400


async def test_workers_are_listed(caller):
    await caller.post("jobs/claim", {"worker_id": "w1", "worker_name": "box", "worker_version": "0.1"})

    status, sessions = await caller.get("worker-sessions")

    assert status == 200
    [session] = sessions["items"]
    assert (session["id"], session["name"], session["version"], session["stale"]) == ("w1", "box", "0.1", False)


# Cancellation


async def test_a_cancelled_run_tells_its_worker(server, caller):
    job = await claimed(server, caller)

    assert await caller.post(f"runs/{job['run_id']}/cancellations") == (204, None)

    _, heartbeat = await caller.post(f"jobs/{job['job_id']}/heartbeat", FENCE)
    assert heartbeat["directives"] == {"should_cancel": True}
    assert (await caller.get(f"runs/{job['run_id']}"))[1]["status"] == "active"
    assert await caller.complete(job, "failed", error_type="Cancelled") == (204, None)
    assert server.run(job["run_id"]).error_type == "run_cancelled"
    assert (await caller.post("runs/run_0/cancellations"))[0] == 404


async def test_an_immediate_cancellation_answers_409():
    async with running(immediate_cancellation=True) as (server, caller):
        job = await claimed(server, caller)

        await server.cancel_run(job["run_id"])

        assert server.run(job["run_id"]).error_type == "run_cancelled"
        assert (await caller.post(f"jobs/{job['job_id']}/heartbeat", FENCE))[0] == 409
        assert (await caller.complete(job, "failed"))[0] == 409


# Streams


def frames(stream: bytes) -> list[dict[str, Any]]:
    parsed = []
    for block in stream.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            data = msgspec.json.decode(lines["data"])
            assert (data["type"], data["seq"]) == (lines["event"], int(lines["id"]))
            parsed.append(data)
    return parsed


async def finished_run(server: DevServer, caller: Caller) -> str:
    job = await claimed(server, caller)
    await caller.post(f"jobs/{job['job_id']}/events", FENCE | {"events": [{"type": "tick", "payload": {"n": 1}}]})
    await caller.complete(job)
    return str(job["run_id"])


async def stream_of(caller: Caller, path: str) -> bytes:
    async with caller.session.get(f"/v1/projects/{PROJECT}/{path}") as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        return await response.read()


async def test_a_runs_stream_tells_its_history_and_ends_with_it(server, caller):
    run_id = await finished_run(server, caller)

    told = frames(await stream_of(caller, f"runs/{run_id}/events"))

    assert [frame["type"] for frame in told] == [
        "run_updated",
        *["job_updated", "run_updated"] * 2,
        "custom",
        *["job_updated", "run_updated"],
    ]
    assert {frame["run_id"] for frame in told} == {run_id}
    assert told[0]["data"]["status"] == told[-1]["data"]["status"] == "completed"
    assert told[5]["data"] == {"kind": "custom", "type": "tick", "job_id": server.jobs(run_id)[0].id, "data": {"n": 1}}


async def test_since_skips_what_is_known(server, caller):
    run_id = await finished_run(server, caller)
    everything = frames(await stream_of(caller, f"runs/{run_id}/events"))

    rest = frames(await stream_of(caller, f"runs/{run_id}/events?since={everything[4]['seq']}"))

    assert rest[1:] == everything[5:]
    assert rest[0]["seq"] == everything[4]["seq"]


async def test_a_stream_tells_what_happens_while_it_is_open(server, caller):
    run_id = await server.start_run(PROJECT, spec())
    async with asyncio.TaskGroup() as group:
        stream = group.create_task(stream_of(caller, f"runs/{run_id}/events"))
        await server.until(lambda: calls_named(server, "watch_run") or None)
        job = await caller.claim()
        await caller.complete(job)

    assert frames(stream.result())[-1]["data"]["status"] == "completed"


async def test_the_state_is_visible_before_its_event(server, caller):
    run_id = await server.start_run(PROJECT, spec())
    async with caller.session.get(f"/v1/projects/{PROJECT}/runs/{run_id}/events") as response:
        job = await caller.claim()
        await caller.complete(job)
        async for line in response.content:
            if b'"status":"completed"' in line and b"run_updated" in line:
                _, run = await caller.get(f"runs/{run_id}")
                break

    assert run["status"] == "completed"


async def test_the_projects_stream_tells_of_all_runs(server, caller):
    await server.start_run(PROJECT, spec())
    seq = server.store.last_seq()
    async with (
        caller.session.get(f"/v1/projects/{PROJECT}/runs/events") as live,
        caller.session.get(f"/v1/projects/{PROJECT}/runs/events?since=1") as replayed,
    ):
        run_id = await server.start_run(PROJECT, spec())
        first_live = await live.content.readuntil(b"\n\n")
        first_replayed = await replayed.content.readuntil(b"\n\n")

    assert (frames(first_live)[0]["seq"], frames(first_live)[0]["run_id"]) == (seq + 1, run_id)
    assert frames(first_replayed)[0]["seq"] == 2


async def test_a_silent_stream_is_kept_alive():
    async with running(keepalive=0.02) as (_, caller), caller.session.get("/v1/projects/demo/runs/events") as response:
        assert await response.content.readuntil(b"\n\n") == b":keepalive\n\n"


async def test_streams_refuse_what_they_cannot_serve(server, caller):
    run_id = await server.start_run(PROJECT, spec())

    assert (await caller.get("runs/run_0/events"))[0] == 404
    assert (await caller.get(f"runs/{run_id}/events", since="yesterday"))[0] == 400


# The server as tests use it


async def test_the_journal_tells_what_was_sent_and_answered(server, caller):
    job = await claimed(server, caller)
    await caller.complete(job)

    claim, complete = server.calls

    assert (claim.name, claim.project, claim.job_id, claim.status) == ("claim", PROJECT, None, 200)
    assert claim.body == {"worker_id": "w"}
    assert (complete.name, complete.job_id, complete.status) == ("complete", job["job_id"], 204)
    assert claim.received_at <= claim.answered_at <= complete.received_at


async def test_the_journal_is_bounded_and_off_by_default():
    async with running(journal=2) as (server, caller):
        for number in range(3):
            await caller.post("jobs/claim", {"worker_id": f"w{number}"})
        assert [call.body["worker_id"] for call in server.calls] == ["w1", "w2"]
    async with running(journal=False) as (server, caller):
        await caller.get("runs")
        assert server.calls == []


async def test_an_interception_answers_instead_of_the_server(server, caller):
    async def be_busy(call):
        return web.json_response({}, status=429, headers={"Retry-After": "1"}) if call.name == "claim" else None

    server.intercept = be_busy

    assert (await caller.post("jobs/claim", {"worker_id": "w"}))[0] == 429
    assert (await caller.get("runs"))[0] == 200
    assert [call.status for call in server.calls] == [429, 200]


async def test_an_interception_can_hang_up(server, caller):
    job = await claimed(server, caller)

    async def hang_up(call):
        raise HangUp

    server.intercept = hang_up

    with pytest.raises(aiohttp.ClientConnectionError):
        await caller.complete(job)

    assert server.job(job["job_id"]).status == "claimed"


async def test_an_interception_can_lose_an_answer(server, caller):
    job = await claimed(server, caller)

    async def lose(call):
        raise LoseAnswer

    server.intercept = lose

    with pytest.raises(aiohttp.ClientConnectionError):
        await caller.complete(job)

    assert server.job(job["job_id"]).status == "completed"


async def test_until_shows_the_state_when_it_waited_in_vain(server):
    run_id = await server.start_run(PROJECT, spec())

    with pytest.raises(TimeoutError, match=f"<Run {run_id} active>.*work pending attempt 1 of 1"):
        await server.until(lambda: False, timeout=0.01)


async def test_the_conveniences_refuse_what_is_wrong(server):
    with pytest.raises(Invalid):
        await server.start_run(PROJECT, spec({"next": [{"step": "nowhere"}]}))
    with pytest.raises(Unknown):
        server.job("job_0")
    with pytest.raises(Unknown):
        await server.cancel_run("run_0")


async def test_an_error_of_the_block_passes_through_as_it_is():
    with pytest.raises(ZeroDivisionError):
        async with DevServer(DevServerSettings()):
            raise ZeroDivisionError


async def test_a_taken_address_is_an_error(server):
    port = int(server.url.rsplit(":", 1)[1])

    with pytest.raises(OSError, match="address already in use"):
        async with DevServer(DevServerSettings(port=port)):
            pass
