"""Each kind of fault, as a client sees it: bytes on a connection, and what the server has done meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
import pytest

from supervisor.devserver.app import DevServer
from supervisor.devserver.faults import parse_faults
from tests.devserver_fixtures import PROJECT, Caller, calls_named, running, spec
from tests.harness import GENEROUS

AGAIN = {"retry": [{"max_retries": 3, "base_delay": "0s"}]}


@asynccontextmanager
async def sabotaged(*faults: dict[str, Any], **settings: Any) -> AsyncIterator[tuple[DevServer, Caller]]:
    async with running(faults=parse_faults({"faults": faults}), **settings) as (server, caller):
        yield server, caller


async def raw(server: DevServer, path: str, body: Any = None) -> bytes:
    """All bytes of the answer to one call, up to the end of the connection; raises ConnectionError when it is reset."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    content = msgspec.json.encode(body)
    head = [f"{'GET' if body is None else 'POST'} /v1/projects/{PROJECT}/{path} HTTP/1.1", "Host: here"]
    head += ["Authorization: Bearer mbx_test", f"Content-Length: {len(content)}", "Connection: close", "", ""]
    writer.write("\r\n".join(head).encode() + content)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def claimed(server: DevServer, caller: Caller, **step: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A job that `w` has claimed, and the fence of the attempt."""
    await server.start_run(PROJECT, spec(step))
    job = await caller.claim()
    return job, {"worker_id": "w", "attempt": job["attempt"]}


def fault(what: str, call: str = "heartbeat", **keys: Any) -> dict[str, Any]:
    return {"what": what, "call": call, **keys}


async def test_a_status_is_answered_and_nothing_is_carried_out() -> None:
    async with sabotaged(fault("status", "complete", status=503, nth=1)) as (server, caller):
        job, _ = await claimed(server, caller)

        assert (await caller.complete(job))[0] == 503
        assert server.job(job["job_id"]).status == "claimed"
        assert (await caller.complete(job))[0] == 204
        assert server.faults_injected == {"status": 1}


async def test_a_status_may_say_when_to_come_again_in_seconds_as_a_date_or_in_any_words() -> None:
    faults = [
        fault("status", "get_job", nth=1, status=429, retry_after=2),
        fault("status", "get_job", nth=2, status=429, retry_date=60),
        fault("status", "get_job", nth=3, status=503, retry_after="soon", body="<html>"),
    ]
    async with sabotaged(*faults) as (_, caller):
        answers = []
        for _ in faults:
            async with caller.session.get(f"/v1/projects/{PROJECT}/jobs/j") as response:
                answers.append((response.status, response.headers["Retry-After"], await response.text()))
                date = parsedate_to_datetime(response.headers["Date"])

    assert answers[0][:2] == (429, "2")
    assert 55 < (parsedate_to_datetime(answers[1][1]) - date).total_seconds() < 65
    assert answers[2] == (503, "soon", "<html>")


async def test_a_delay_comes_before_the_call_is_carried_out() -> None:
    async with sabotaged(fault("delay", "complete", seconds=0.2)) as (server, caller):
        job, _ = await claimed(server, caller)
        report = asyncio.create_task(caller.complete(job))
        await server.until(lambda: server.faults_injected or None)

        assert server.job(job["job_id"]).status == "claimed"
        assert (await report)[0] == 204
        assert server.job(job["job_id"]).status == "completed"


async def test_a_call_that_hangs_gets_no_answer_until_its_client_goes() -> None:
    async with sabotaged(fault("hang", "complete", nth=1)) as (server, caller):
        job, _ = await claimed(server, caller)
        report = asyncio.create_task(caller.complete(job))
        await server.until(lambda: server.faults_injected or None)
        report.cancel()
        await server.until(lambda: calls_named(server, "complete")[0].answered_at)

        assert calls_named(server, "complete")[0].status is None
        assert server.job(job["job_id"]).status == "claimed"


async def test_a_server_that_closes_lets_go_of_calls_that_hang() -> None:
    async with sabotaged(fault("hang"), fault("delay", "get_job", seconds=3600)) as (server, _):
        calls = [asyncio.create_task(raw(server, "jobs/j/heartbeat", {})), asyncio.create_task(raw(server, "jobs/j"))]
        await server.until(lambda: len(server.faults_injected) == 2)
        closing = asyncio.get_running_loop().time()
    taken = asyncio.get_running_loop().time() - closing

    await asyncio.wait(calls)
    assert taken < GENEROUS
    assert calls[0].exception() is not None or calls[0].result() == b""


@pytest.mark.parametrize(("what", "status"), [("hang_up", "claimed"), ("lose_answer", "completed")])
async def test_a_broken_connection_tells_nothing_of_what_was_carried_out(what: str, status: str) -> None:
    async with sabotaged(fault(what, "complete")) as (server, caller):
        job, fence = await claimed(server, caller)

        assert await raw(server, f"jobs/{job['job_id']}/complete", fence | {"status": "completed"}) == b""
        assert server.job(job["job_id"]).status == status


async def test_an_answer_is_reset_after_as_many_bytes_as_asked() -> None:
    async with sabotaged(*(fault("reset", nth=number + 1, bytes=20 * number) for number in range(12))) as (
        server,
        caller,
    ):
        job, fence = await claimed(server, caller)
        for number in range(12):
            with pytest.raises(ConnectionResetError):
                await raw(server, f"jobs/{job['job_id']}/heartbeat", fence)
            assert server.faults_injected == {"reset": number + 1}

        assert server.job(job["job_id"]).heartbeat_at is not None


async def test_a_truncated_answer_lacks_its_last_bytes_and_ends_in_good_order() -> None:
    async with sabotaged(fault("truncate", nth=1, bytes=5)) as (server, caller):
        job, fence = await claimed(server, caller)
        data = await raw(server, f"jobs/{job['job_id']}/heartbeat", fence)

    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert data.endswith(b'"should_cancel":fa')
    assert b"Content-Length: 48\r\n" in data


async def test_a_slow_answer_is_whole_in_the_end() -> None:
    async with sabotaged(fault("slow", seconds=0.002)) as (server, caller):
        job, fence = await claimed(server, caller)
        began = asyncio.get_running_loop().time()
        status, body = await caller.post(f"jobs/{job['job_id']}/heartbeat", fence)
        taken = asyncio.get_running_loop().time() - began

    assert (status, body) == (200, {"ok": True, "directives": {"should_cancel": False}})
    assert taken > 100 * 0.002


async def test_garbage_is_a_page_or_no_http_at_all() -> None:
    async with sabotaged(fault("garbage", nth=1), fault("garbage", nth=2, of="http")) as (server, caller):
        job, fence = await claimed(server, caller)
        page = await raw(server, f"jobs/{job['job_id']}/heartbeat", fence)
        noise = await raw(server, f"jobs/{job['job_id']}/heartbeat", fence)

    assert page.startswith(b"HTTP/1.1 200")
    assert b"<html>" in page
    assert noise
    assert not noise.startswith(b"HTTP")


async def test_wrong_types_keep_the_names_of_the_fields() -> None:
    async with sabotaged(fault("wrong_type"), fault("wrong_type", "complete")) as (server, caller):
        job, fence = await claimed(server, caller)

        _, beat = await caller.post(f"jobs/{job['job_id']}/heartbeat", fence)
        assert beat == {"ok": "perhaps", "directives": {"should_cancel": "perhaps"}}
        assert await caller.complete(job) == (200, ["nothing"])


async def test_an_oversized_answer_is_longer_than_asked_and_still_says_the_same() -> None:
    async with sabotaged(fault("oversized", bytes=100_000)) as (server, caller):
        job, fence = await claimed(server, caller)
        _, beat = await caller.post(f"jobs/{job['job_id']}/heartbeat", fence)

    assert beat["ok"] is True
    assert len(beat["padding"]) == 100_000


@pytest.mark.parametrize("call", ["heartbeat", "complete", "claim"])
async def test_extra_fields_stand_beside_the_known_ones(call: str) -> None:
    async with sabotaged(fault("extra_fields", call)) as (server, caller):
        job, fence = await claimed(server, caller)
        body = job if call == "claim" else None
        if call == "heartbeat":
            body = (await caller.post(f"jobs/{job['job_id']}/heartbeat", fence))[1]
        if call == "complete":
            body = (await caller.complete(job))[1]

    assert body is not None
    assert body["lease_token"] == "lt_1"


async def test_an_expired_lease_is_over_before_the_call_is_carried_out() -> None:
    async with sabotaged(fault("expire_lease", nth=1)) as (server, caller):
        job, fence = await claimed(server, caller, **AGAIN)

        assert (await caller.post(f"jobs/{job['job_id']}/heartbeat", fence))[0] == 409
        again = await caller.claim()

    assert (again["job_id"], again["attempt"]) == (job["job_id"], 2)


async def test_an_expired_lease_of_a_claim_is_over_before_its_answer() -> None:
    async with sabotaged(fault("expire_lease", "claim", nth=1)) as (server, caller):
        job, fence = await claimed(server, caller, **AGAIN)

        assert (await caller.post(f"jobs/{job['job_id']}/heartbeat", fence))[0] == 409


@pytest.mark.parametrize("call", ["claim", "heartbeat"])
async def test_a_cancel_is_told_with_the_next_beat(call: str) -> None:
    async with sabotaged(fault("cancel", call, nth=1)) as (server, caller):
        job, fence = await claimed(server, caller)
        _, beat = await caller.post(f"jobs/{job['job_id']}/heartbeat", fence)

    assert beat["directives"] == {"should_cancel": True}


async def test_a_duplicate_claim_hands_the_same_attempt_out_to_the_next_claim_too() -> None:
    async with sabotaged(fault("duplicate_claim", "claim", nth=1)) as (server, caller):
        job, _ = await claimed(server, caller)
        again = await caller.claim("another", wait_seconds=0)

        assert again == job
        assert server.job(job["job_id"]).claimed_by == "w"
        assert await caller.post("jobs/claim", {"worker_id": "w"}) == (204, None)


@pytest.mark.parametrize("what", ["lose_answer", "truncate", "reset", "slow", "garbage", "wrong_type"])
async def test_a_job_whose_claim_was_spoiled_counts_as_handed_out(what: str) -> None:
    keys = {"seconds": 0} if what == "slow" else {}
    async with sabotaged(fault(what, "claim", **keys), lease_ttl=0.1) as (server, _):
        run = await server.start_run(PROJECT, spec())
        await asyncio.gather(raw(server, "jobs/claim", {"worker_id": "w"}), return_exceptions=True)
        (job,) = server.jobs(run)

        assert job.status == "claimed"
        await server.until(lambda: server.run(run).status == "failed")
        assert server.jobs(run)[0].error_type == "liveness_timeout"


@pytest.mark.parametrize("which", [{}, {"action": "work"}])
@pytest.mark.parametrize(("what", "keys"), [("status", {"status": 500}), ("hang_up", {})])
async def test_a_job_whose_claim_was_refused_goes_to_the_next(
    what: str, keys: dict[str, Any], which: dict[str, Any]
) -> None:
    async with sabotaged(fault(what, "claim", nth=1, **keys, **which)) as (server, caller):
        run = await server.start_run(PROJECT, spec())
        refused = await raw(server, "jobs/claim", {"worker_id": "w"})
        job = await caller.claim()

        assert refused == b"" or refused.startswith(b"HTTP/1.1 500")
        assert (job["run_id"], job["attempt"]) == (run, 1)


async def test_a_job_whose_claim_hangs_goes_to_the_next_when_the_client_has_gone() -> None:
    async with sabotaged(fault("hang", "claim", claimed=1, nth=1)) as (server, caller):
        await server.start_run(PROJECT, spec())
        hanging = asyncio.create_task(raw(server, "jobs/claim", {"worker_id": "w"}))
        await server.until(lambda: server.faults_injected or None)
        hanging.cancel()

        assert (await caller.claim(wait_seconds=5))["attempt"] == 1


async def test_a_job_is_told_by_the_order_in_which_it_was_handed_out() -> None:
    async with sabotaged(fault("status", "complete", claimed=2, status=500)) as (server, caller):
        jobs = [(await claimed(server, caller))[0] for _ in range(3)]

        assert [(await caller.complete(job))[0] for job in jobs] == [204, 500, 204]


async def test_a_fault_may_fall_on_a_refusal_too() -> None:
    async with sabotaged(fault("lose_answer", "get_job", nth=1)) as (server, caller):
        assert await raw(server, "jobs/unknown") == b""
        assert (await caller.get("jobs/unknown"))[0] == 404


async def test_faults_fall_on_workers_only() -> None:
    async with sabotaged(fault("status", "any", status=500)) as (_, caller):
        assert (await caller.post("runs", {"spec": spec()}))[0] == 202
        assert (await caller.get("worker-sessions"))[0] == 200


async def test_a_client_that_hangs_up_in_the_middle_harms_nothing() -> None:
    async with sabotaged(fault("slow", "get_job", seconds=0.05)) as (server, caller):
        slow = asyncio.create_task(raw(server, "jobs/j"))
        await server.until(lambda: server.faults_injected or None)
        slow.cancel()
        await server.until(lambda: calls_named(server, "get_job")[0].answered_at)

        assert (await caller.get("worker-sessions"))[0] == 200
