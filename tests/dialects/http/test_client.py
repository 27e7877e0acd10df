"""The four calls over HTTP: what each answer means, and what no answer can do to us."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import os
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.devserver.app import DevServer, DevServerSettings, HangUp, LoseAnswer
from supervisor.devserver.call_log import Call
from supervisor.dialects.http.client import MAX_RETRY_AFTER, Account, Client, retry_after
from supervisor.job import Blob, Directive, Event, Failed, Fence, Succeeded
from supervisor.job_server import (
    ClaimRefused,
    KeyRefused,
    RateLimited,
    RequestRejected,
    ServerError,
    StaleFence,
    Unavailable,
)
from tests.harness import GENEROUS, KEY, PROJECT, events, start_job
from tests.process_world import descriptors_left, open_descriptors
from tests.raw_server import (
    Behaviour,
    RawServer,
    answering,
    hashing,
    raw_server,
    refusing_at_the_head,
    repeating,
    resetting,
    saying,
)

WORKER = "worker 1"
FENCE = Fence(WORKER, "job_1", 1)
ERROR = b'{"error": {"code": "some_code", "message": "some message"}}'

CALLS: dict[str, Callable[[Client], Awaitable[object]]] = {
    "claim": lambda client: client.claim(["echo"], wait=0),
    "heartbeat": lambda client: client.heartbeat(FENCE, timeout=5.0),
    "events": lambda client: client.send_events(FENCE, [Event("tick", b"{}")]),
    "complete": lambda client: client.complete(FENCE, Succeeded(None)),
    "look-up": lambda client: client.is_settled(FENCE),
}
ON_A_JOB = [name for name in CALLS if name != "claim"]


@asynccontextmanager
async def client_of(url: str, token: str = KEY, **account: Any) -> AsyncIterator[Client]:
    fields = {"base_url": url, "project": PROJECT, "worker_id": WORKER, "queues": ("default",), **account}
    async with Client(Account(**fields), token) as client:
        yield client


@asynccontextmanager
async def against(behaviour: Behaviour, **account: Any) -> AsyncIterator[tuple[Client, RawServer]]:
    async with raw_server(behaviour) as server, client_of(server.url, **account) as client:
        yield client, server


# What a real server answers


async def test_a_job_is_claimed_with_its_fence(server: DevServer) -> None:
    run = await start_job(server, "echo", {"text": "ä"})

    async with client_of(server.url, worker_name="host-1") as client:
        job = await client.claim(["echo"], wait=0)

    assert job is not None
    assert (job.run_id, job.action, job.step_name, job.attempt, job.queue) == (run, "echo", "only", 1, "default")
    assert json.loads(job.parameters) == {"text": "ä"}
    assert job.heartbeat_interval == 0.2
    assert server.job(job.job_id).claimed_by == WORKER
    assert server.calls[-1].body.keys() == {
        "worker_id", "queues", "actions", "wait_seconds", "worker_name", "worker_version"
    }  # fmt: skip


async def test_an_empty_queue_has_no_job(server: DevServer) -> None:
    async with client_of(server.url) as client:
        assert await client.claim(["echo"], wait=0) is None


async def test_only_jobs_of_the_given_actions_and_queues_are_claimed(server: DevServer) -> None:
    await start_job(server, "echo")

    async with client_of(server.url) as client, client_of(server.url, queues=("other",)) as elsewhere:
        assert await client.claim(["resize"], wait=0) is None
        assert await elsewhere.claim(["echo"], wait=0) is None
        assert await client.claim(["resize", "echo"], wait=0) is not None


@asynccontextmanager
async def claimed(server: DevServer) -> AsyncIterator[tuple[Client, Fence, str]]:
    """A client that holds a job."""
    run = await start_job(server, "echo")
    async with client_of(server.url) as client:
        job = await client.claim(["echo"], wait=0)
        assert job is not None
        yield client, Fence(WORKER, job.job_id, job.attempt), run


async def test_a_heartbeat_is_told_to_go_on_until_the_run_is_cancelled(server: DevServer) -> None:
    async with claimed(server) as (client, fence, run):
        assert await client.heartbeat(fence, timeout=5.0) is Directive.CONTINUE

        await server.cancel_run(run)

        assert await client.heartbeat(fence, timeout=5.0) is Directive.CANCEL


async def test_events_are_published_in_their_order(server: DevServer) -> None:
    async with claimed(server) as (client, fence, run):
        await client.send_events(fence, [Event("tick", json.dumps({"n": n}).encode()) for n in range(100)])

    assert [payload["n"] for payload in events(server, run, "tick")] == list(range(100))


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(Succeeded(b"e30="), "completed"), (Succeeded(None), "completed"), (Failed("E", "m"), "failed")],
)
async def test_a_report_settles_the_job(server: DevServer, outcome: Any, status: str) -> None:
    async with claimed(server) as (client, fence, _):
        assert not await client.is_settled(fence)

        await client.complete(fence, outcome)

        assert await client.is_settled(fence)
        assert server.job(fence.job_id).status == status


async def test_a_job_that_is_another_workers_is_a_stale_fence(server: DevServer) -> None:
    async with claimed(server) as (client, fence, _):
        stale = Fence("another", fence.job_id, fence.attempt)

        for call in (
            client.heartbeat(stale, timeout=5.0),
            client.send_events(stale, [Event("tick", b"{}")]),
            client.complete(stale, Succeeded(None)),
        ):
            with pytest.raises(StaleFence, match="409"):
                await call


async def test_one_bad_event_is_rejected_with_all_others(server: DevServer) -> None:
    async with claimed(server) as (client, fence, run):
        with pytest.raises(RequestRejected) as caught:
            await client.send_events(fence, [Event("tick", b"{}"), Event("mobius.tick", b"{}")])

    assert caught.value.status == 400
    assert events(server, run, "tick") == []


async def test_a_key_that_is_not_valid_ends_the_program() -> None:
    async with (
        DevServer(DevServerSettings(api_key="mbx_right")) as server,
        client_of(server.url, "mbx_wrong") as client,
    ):
        for call in CALLS.values():
            with pytest.raises(KeyRefused, match="401"):
                await call(client)


async def test_a_key_and_queues_that_are_renewed_are_used_from_the_next_call_on() -> None:
    async with (
        DevServer(DevServerSettings(api_key="mbx_new", journal=True)) as server,
        client_of(server.url, "mbx_old") as client,
    ):
        client.renew("mbx_new", ("other",), None)

        assert await client.claim(["echo"], wait=0) is None
        assert server.calls[-1].body["queues"] == ["other"]


async def test_a_project_that_does_not_exist_ends_the_program() -> None:
    settings = DevServerSettings(projects=frozenset({"other"}))
    async with DevServer(settings) as server, client_of(server.url) as client:
        with pytest.raises(ClaimRefused) as caught:
            await client.claim(["echo"], wait=0)

    assert str(caught.value) == (
        "the server has no project 'acme', or is not a Mobius server: correct --project or --base-url "
        "(404 not_found: there is no project 'acme')"
    )


@pytest.mark.parametrize("error", [HangUp, LoseAnswer])
async def test_a_lost_answer_is_no_answer(server: DevServer, error: type[Exception]) -> None:
    async def intercept(_call: Call) -> None:
        raise error

    async with claimed(server) as (client, fence, _):
        server.intercept = intercept
        with pytest.raises(Unavailable):
            await client.complete(fence, Succeeded(None))
        server.intercept = None

        assert await client.is_settled(fence) is (error is LoseAnswer)


async def test_a_heartbeat_does_not_queue_behind_open_polls(server: DevServer) -> None:
    async with claimed(server) as (client, fence, _), asyncio.TaskGroup() as group:
        polls = [group.create_task(client.claim(["echo"], wait=20)) for _ in range(120)]
        await server.until(lambda: sum(call.name == "claim" for call in server.calls) == 121)

        assert await client.heartbeat(fence, timeout=5.0) is Directive.CONTINUE

        for poll in polls:
            poll.cancel()


@pytest.mark.parametrize("id_", ["a/b", "..", "a b", "ä", "100%", "a%2Fb", "?x#y", "."])
async def test_any_job_id_finds_its_way(id_: str) -> None:
    settings = DevServerSettings(new_id=lambda kind: id_ if kind == "job" else f"{kind}_1")
    async with DevServer(settings) as server, claimed(server) as (client, fence, _):
        assert fence.job_id == id_
        assert await client.heartbeat(fence, timeout=5.0) is Directive.CONTINUE

        await client.complete(fence, Succeeded(None))

        assert await client.is_settled(fence)


# What stands on the wire


@pytest.mark.parametrize(
    ("job_id", "segment"),
    [
        ("job_1", "job_1"),
        ("a/b", "a%2Fb"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("ä", "%C3%A4"),
        (" ", "%20"),
        ("a%2Fb", "a%252Fb"),
        ("x?y#z", "x%3Fy%23z"),
        ("a\r\nHost: evil", "a%0D%0AHost%3A%20evil"),
    ],
)
async def test_ids_are_percent_encoded(job_id: str, segment: str) -> None:
    async with against(answering(200, b"{}")) as (client, server):
        await client.heartbeat(Fence(WORKER, job_id, 1), timeout=5.0)

    assert server.requests[0].line == f"POST /v1/projects/{PROJECT}/jobs/{segment}/heartbeat HTTP/1.1"


async def test_each_call_has_its_path() -> None:
    async with against(answering(200, b"{}")) as (client, server):
        for call in CALLS.values():
            try:
                await call(client)
            except Unavailable:
                continue  # `{}` is no job, and no state of one

    assert [request.line.removesuffix(" HTTP/1.1") for request in server.requests] == [
        "POST /v1/projects/acme/jobs/claim",
        "POST /v1/projects/acme/jobs/job_1/heartbeat",
        "POST /v1/projects/acme/jobs/job_1/events",
        "POST /v1/projects/acme/jobs/job_1/complete",
        "GET /v1/projects/acme/jobs/job_1",
    ]


async def test_the_server_may_stand_below_a_path() -> None:
    async with raw_server(answering(200, b"{}")) as server, client_of(f"{server.url}/mobius/") as client:
        await client.heartbeat(FENCE, timeout=5.0)

    assert server.requests[0].path == "/mobius/v1/projects/acme/jobs/job_1/heartbeat"


@pytest.mark.parametrize("token", ["mbx_secret", "acme/mbx_secret", "mbx_secret.acme", "mbx_a+b/c==~"])
async def test_the_key_is_sent_byte_for_byte(token: str) -> None:
    async with raw_server(answering(200, b"{}")) as server, client_of(server.url, token) as client:
        await client.heartbeat(FENCE, timeout=5.0)

    assert server.requests[0].headers["authorization"] == f"Bearer {token}"
    assert server.requests[0].headers["content-type"] == "application/json"


async def test_cookies_are_not_kept() -> None:
    async with against(answering(200, b"{}", Set_Cookie="session=1; Path=/")) as (client, server):
        await client.heartbeat(FENCE, timeout=5.0)
        await client.heartbeat(FENCE, timeout=5.0)

    assert "cookie" not in server.requests[1].headers
    assert server.connections == 1  # but the connection is


# What each status means


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RequestRejected),
        (401, KeyRefused),
        (403, KeyRefused),
        (405, RequestRejected),
        (408, Unavailable),
        (413, RequestRejected),
        (422, RequestRejected),
        (425, Unavailable),
        (429, RateLimited),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
        (599, Unavailable),
        (202, Unavailable),
    ],
)
async def test_a_status_that_is_no_success(call: str, status: int, error: type[ServerError]) -> None:
    async with against(answering(status, ERROR, Content_Type="application/json")) as (client, _):
        with pytest.raises(error) as caught:
            await CALLS[call](client)

    assert str(caught.value) == f"{status} some_code: some message"
    if isinstance(caught.value, RequestRejected):
        assert (caught.value.status, caught.value.too_large) == (status, status == 413)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>Request blocked</html>", "text/html"),
        (b"", "application/json"),
        (b'{"message":"Forbidden"}', "application/json"),
        (b'{"error":"forbidden"}', "application/json"),
        (ERROR, "text/html"),
    ],
)
async def test_a_refusal_that_is_not_in_the_form_of_the_server_is_no_verdict_on_the_key(
    status: int, body: bytes, kind: str
) -> None:
    async with against(answering(status, body, Content_Type=kind)) as (client, _):
        for call in CALLS.values():
            with pytest.raises(Unavailable, match=f"^{status}.*not in the format of the job server"):
                await call(client)


@pytest.mark.parametrize("status", [404, 409])
async def test_not_found_and_conflict_about_a_job_are_a_stale_fence(status: int) -> None:
    async with against(answering(status)) as (client, _):
        for name in ON_A_JOB:
            with pytest.raises(StaleFence, match=str(status)):
                await CALLS[name](client)


@pytest.mark.parametrize("status", [404, 409])
async def test_not_found_and_conflict_on_a_claim_end_the_program(status: int) -> None:
    async with against(answering(status)) as (client, _):
        with pytest.raises(ClaimRefused, match=str(status)):
            await CALLS["claim"](client)


async def test_a_heartbeat_that_is_not_ok_is_a_stale_fence() -> None:
    async with against(answering(200, b'{"ok": false}')) as (client, _):
        with pytest.raises(StaleFence, match="ok: false"):
            await CALLS["heartbeat"](client)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", CALLS)
async def test_a_redirect_is_not_followed_and_the_key_stays_here(call: str, status: int) -> None:
    async with (
        raw_server(answering(200, b"{}")) as elsewhere,
        against(answering(status, Location=f"{elsewhere.url}/v1")) as (client, server),
    ):
        with pytest.raises(Unavailable, match=str(status)):
            await CALLS[call](client)

        assert len(server.requests) == 1
        assert elsewhere.connections == 0


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://user:{key}@new.example:8443/mobius?token={key}#{key}", "https://new.example:8443/mobius"),
        ("/login?next={key}", "/login"),
        ("http://[", "an invalid address"),
        ("https://new.example/" + "x" * 1000, "https://new.example/" + "x" * 180),
    ],
)
async def test_a_redirect_says_where_to_without_what_may_be_secret(location: str, shown: str) -> None:
    async with against(answering(302, Location=location.format(key=KEY))) as (client, _):
        with pytest.raises(Unavailable) as caught:
            await CALLS["claim"](client)

    assert str(caught.value) == f"302: redirects to {shown}, which is not followed; correct --base-url"


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("99999999999", MAX_RETRY_AFTER),
        ("9" * 5000, MAX_RETRY_AFTER),
        ("Wed, 21 Oct 2026 07:28:42 GMT", 42.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", MAX_RETRY_AFTER),
        ("Wed, 21 Oct 2026 07:28:42", 1.0),
        ("Wed, 99 Oct 2026 07:28:42 GMT", 1.0),
        ("Wed, 21 Oct 99999999999999 07:28:42 GMT", 1.0),
        ("-5", 1.0),
        ("1.5", 1.0),
        ("inf", 1.0),
        ("soon", 1.0),
        ("", 1.0),
    ],
)
async def test_the_wait_that_a_limit_asks_for(told: str, seconds: float) -> None:
    async with against(answering(429, Retry_After=told, Date=DATE)) as (client, _):
        with pytest.raises(RateLimited) as caught:
            await CALLS["events"](client)

    assert caught.value.retry_after == seconds


def test_without_a_word_about_it_the_wait_is_a_second() -> None:
    assert retry_after({}) == 1.0
    assert retry_after({"Retry-After": "Wed, 21 Oct 2026 07:28:42 GMT"}) == 1.0  # and no Date to count from


@given(st.text(), st.text())
def test_whatever_the_headers_say_the_wait_is_bounded(told: str, date: str) -> None:
    assert 0.0 <= retry_after({"Retry-After": told, "Date": date}) <= MAX_RETRY_AFTER


# What broken servers and connections do

OK = b"HTTP/1.1 200 OK\r\n"
BROKEN = {
    "hangs up": saying(),
    "resets": resetting,
    "ends in the status line": saying(b"HTTP/1.1 20"),
    "ends in the headers": saying(OK + b"Content-Len"),
    "ends in the body": saying(OK + b'Content-Length: 100\r\n\r\n{"ok": true'),
    "ends in a chunk": saying(OK + b'Transfer-Encoding: chunked\r\n\r\n64\r\n{"ok":'),
    "ends before the last chunk": saying(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
    "speaks another protocol": saying(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "sends garbage": saying(os.urandom(4096) + b"\r\n\r\n"),
    "sends a header without end": saying(OK + b"X: " + b"x" * 100_000),
    "sends too many headers": saying(OK + b"X: y\r\n" * 50_000 + b"\r\n"),
    "sends a length that is none": saying(OK + b"Content-Length: many\r\n\r\n{}"),
    "sends a negative length": saying(OK + b"Content-Length: -1\r\n\r\n{}"),
    "sends two lengths": saying(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "sends chunks that are none": saying(OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n"),
    "sends what is not packed as packed": saying(OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"),
    "sends an empty answer": saying(OK + b"Content-Length: 0\r\n\r\n"),
    "sends a page": saying(OK + b"Content-Length: 13\r\n\r\n<html></html>"),
}


@pytest.mark.parametrize("call", ["claim", "heartbeat", "look-up"])
@pytest.mark.parametrize("behaviour", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_answer_is_no_answer(call: str, behaviour: Behaviour) -> None:
    async with against(behaviour) as (client, _):
        with pytest.raises(Unavailable) as caught:
            await CALLS[call](client)

    assert str(caught.value)


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ("hangs up", "{} hung up without an answer"),
        ("ends in the headers", "{} hung up without an answer"),
        ("speaks another protocol", "{} does not speak HTTP: does --base-url name the Mobius server?"),
        ("sends garbage", "{} does not speak HTTP: does --base-url name the Mobius server?"),
        ("sends a header without end", "{} answered with a header that is too large: check the server, and any"),
        ("sends too many headers", "{} answered with a header that is too large: check the server, and any"),
        ("ends in the body", "the answer of {} is incomplete or damaged: check the server, and any"),
        ("sends what is not packed as packed", "the answer of {} is incomplete or damaged"),
    ],
)
async def test_what_is_wrong_with_an_answer_is_one_sentence(behaviour: str, told: str) -> None:
    async with against(BROKEN[behaviour]) as (client, server):
        with pytest.raises(Unavailable) as caught:
            await CALLS["claim"](client)

    assert str(caught.value).startswith(told.format(server.url.removeprefix("http://")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", ["events", "complete"])
@pytest.mark.parametrize("behaviour", ["hangs up", "resets", "ends in the headers", "sends garbage"])
async def test_a_report_without_an_answer_counts_as_unanswered(call: str, behaviour: str) -> None:
    async with against(BROKEN[behaviour]) as (client, _):
        with pytest.raises(Unavailable):
            await CALLS[call](client)


@pytest.mark.parametrize("call", ["events", "complete"])
@pytest.mark.parametrize("body", [b"<html>Log in</html>", b"[]", b'"ok"', b"OK", b'{"ok": true', b"\xff", b"[" * 9999])
async def test_a_200_with_anything_but_an_object_has_taken_nothing(call: str, body: bytes) -> None:
    async with against(answering(200, body, Content_Type="text/html; charset=utf-8")) as (client, _):
        with pytest.raises(Unavailable, match=r"^200 text/html; charset=utf-8: .* perhaps not from the job server"):
            await CALLS[call](client)


@pytest.mark.parametrize("call", ["events", "complete"])
@pytest.mark.parametrize("answer", [(204, b""), (200, b""), (200, b"{}"), (200, b'{"ok": true, "events": [1]}\n')])
async def test_a_204_or_a_200_that_says_nothing_else_has_taken_all(call: str, answer: tuple[int, bytes]) -> None:
    async with against(answering(*answer)) as (client, server):
        await CALLS[call](client)

    assert len(server.requests) == 1


@pytest.mark.parametrize("call", CALLS)
async def test_a_server_that_is_not_there_gives_no_answer(call: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]

    async with client_of(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(Unavailable):
            await CALLS[call](client)


async def test_a_host_that_has_no_address_gives_no_answer() -> None:
    async with client_of("http://nowhere.invalid") as client:
        with pytest.raises(Unavailable):
            await CALLS["heartbeat"](client)


SLOW = {
    "nothing": saying(then_silence=True),
    "half a status line": saying(b"HTTP/1.1 20", then_silence=True),
    "headers": saying(OK + b"Content-Length: 100\r\n\r\n", then_silence=True),
    "half a body": saying(OK + b'Content-Length: 100\r\n\r\n{"ok": true', then_silence=True),
    "a byte now and then": repeating(OK + b"Content-Length: 100000\r\n\r\n", b" ", pause=0.01),
    "interim answers": repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.01),
}


@pytest.mark.parametrize("behaviour", SLOW.values(), ids=SLOW.keys())
async def test_a_heartbeat_waits_no_longer_than_its_timeout(behaviour: Behaviour) -> None:
    async with against(behaviour) as (client, _):
        began = asyncio.get_running_loop().time()

        with pytest.raises(Unavailable, match=r"^no answer within 0\.1 s$"):
            await client.heartbeat(FENCE, timeout=0.1)

        assert asyncio.get_running_loop().time() - began < GENEROUS


async def test_a_heartbeat_whose_time_is_over_does_not_wait_at_all() -> None:
    async with against(saying(then_silence=True)) as (client, _):
        with pytest.raises(Unavailable):
            await asyncio.wait_for(client.heartbeat(FENCE, timeout=0.0), 5)


@pytest.mark.parametrize(
    "behaviour",
    [
        repeating(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 0x10000 + b"\r\n"),
        repeating(OK + b"\r\n", b" " * 0x10000),
        saying(OK + b"Content-Length: 4000000\r\n\r\n" + b" " * 4_000_000),
        answering(200, gzip.compress(b" " * 4_000_000), Content_Encoding="gzip"),
    ],
    ids=["chunks without end", "a body without end", "an announced one", "a packed one"],
)
async def test_an_answer_that_is_too_long_is_not_read(behaviour: Behaviour) -> None:
    async with against(behaviour) as (client, _):
        with pytest.raises(Unavailable, match="longer than 1048576 bytes"):
            await CALLS["heartbeat"](client)


async def test_an_answer_may_be_packed() -> None:
    body = gzip.compress(b'{"ok": true, "directives": {"should_cancel": true}}')
    async with against(answering(200, body, Content_Encoding="gzip")) as (client, _):
        assert await client.heartbeat(FENCE, timeout=5.0) is Directive.CANCEL


async def test_a_claim_that_is_cancelled_hangs_up() -> None:
    async with against(saying(then_silence=True)) as (client, server):
        poll = asyncio.create_task(client.claim(["echo"], wait=20))
        await server.asked.wait()

        poll.cancel()
        await asyncio.wait([poll])

        await asyncio.wait_for(server.hung_up.wait(), 5)
        assert poll.cancelled()


async def test_after_a_broken_connection_the_next_call_opens_a_new_one() -> None:
    async def breaks_once(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (resetting if server.connections == 1 else answering(200, b"{}"))(server, reader, writer)

    async with against(breaks_once) as (client, _):
        with pytest.raises(Unavailable):
            await client.heartbeat(FENCE, timeout=5.0)

        assert await client.heartbeat(FENCE, timeout=5.0) is Directive.CONTINUE


# Parameters too big to be held


def big_claim(size: int, **more: Any) -> bytes:
    """The answer to a claim with parameters of about `size` bytes, amid other fields."""
    before = {"job_id": "job_1", "run_id": "run_1", "labels": [{"a": "}"}], "action": "echo"}
    parameters = {"text": "x]" * (size // 2), "list": [{"n": n, "quoted": '\\"'} for n in range(10)]}
    return json.dumps({**before, "parameters": parameters, "attempt": 2, **more}).encode()


def content_of(blob: bytes | Blob) -> bytes:
    assert isinstance(blob, Blob)
    return os.pread(blob.descriptor, blob.size, blob.offset)


def memory_files(descriptors: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(number, target) for number, target in descriptors if target.startswith("/memfd:")}


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def in_chunks(body: bytes) -> Behaviour:
    pieces = [body[start : start + 50_000] for start in range(0, len(body), 50_000)]
    return saying(CHUNKED, *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), b"0\r\n\r\n")


@pytest.mark.parametrize(
    "behaviour",
    [
        lambda body: answering(200, body),
        lambda body: answering(200, gzip.compress(body, 1), Content_Encoding="gzip"),
        lambda body: saying(OK + b"\r\n", body),
        in_chunks,
    ],
    ids=["an announced one", "a packed one", "one to the end", "chunks"],
)
async def test_parameters_too_big_to_be_held_are_in_a_file(behaviour: Callable[[bytes], Behaviour]) -> None:
    body = big_claim(3_000_000)
    async with against(behaviour(body)) as (client, _):
        before = open_descriptors()

        job = await client.claim(["echo"], wait=0)

        assert job is not None
        assert (job.job_id, job.action, job.attempt) == ("job_1", "echo", 2)
        assert json.loads(content_of(job.parameters)) == json.loads(body)["parameters"]
        job.close()
        job.close()
        assert not memory_files(open_descriptors() - before)


@pytest.mark.parametrize("big", ["x" * 3_000_000, ["x" * 3_000_000]])
async def test_a_job_without_parameters_may_come_beside_something_big(big: object) -> None:
    body = big_claim(10, big=big).replace(b'"parameters"', b'"others"')
    async with against(answering(200, body)) as (client, _):
        before = open_descriptors()

        job = await client.claim(["echo"], wait=0)

        assert job is not None
        assert job.parameters == b"{}"
        assert not memory_files(open_descriptors() - before)


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        (saying(OK + b"Content-Length: 3000000\r\n\r\n" + big_claim(2_000_000)), "is incomplete or damaged"),
        (saying(CHUNKED + b"300000\r\n" + big_claim(2_000_000)), "is incomplete or damaged"),
        (saying(OK + b"\r\n" + big_claim(2_000_000)[:-1]), "cannot be decoded"),
        (saying(OK + b"Content-Length: 300000000\r\n\r\n" + big_claim(2_000_000)), "longer than 268435456 bytes"),
        (answering(200, big_claim(10, **{f"field {n}": n for n in range(100_000)})), "too much"),
        (answering(200, b"[" * 2_000_000), "cannot be decoded"),
        (answering(503, big_claim(2_000_000)), "longer than 1048576 bytes"),
    ],
    ids=["cut", "cut in a chunk", "half", "huge", "wide", "nonsense", "an error"],
)
async def test_a_big_claim_that_is_of_no_use_leaves_no_file(behaviour: Behaviour, told: str) -> None:
    async with against(behaviour) as (client, _):
        before = open_descriptors()

        with pytest.raises(Unavailable, match=told):
            await client.claim(["echo"], wait=0)

        assert not memory_files(open_descriptors() - before)


async def test_a_big_claim_is_received_though_all_descriptors_are_used_up() -> None:
    async with against(answering(200, big_claim(2_000_000))) as (client, _):
        first = await client.claim(["echo"], wait=0)  # from now on there is a connection
        assert first is not None
        first.close()
        with descriptors_left(0):
            job = await client.claim(["echo"], wait=0)
            with pytest.raises(Unavailable, match="cannot create a file for a long answer: Too many open files"):
                await client.claim(["echo"], wait=0)

        assert job is not None
        assert len(content_of(job.parameters)) > 2_000_000
        job.close()


async def test_a_claim_that_is_cancelled_in_the_middle_of_its_answer_leaves_no_file() -> None:
    begun = saying(OK + b"Content-Length: 3000000\r\n\r\n" + big_claim(2_000_000), then_silence=True)
    async with against(begun) as (client, _):
        before = open_descriptors()
        claiming = asyncio.create_task(client.claim(["echo"], wait=0))
        async with asyncio.timeout(GENEROUS):
            while not memory_files(open_descriptors() - before):
                await asyncio.sleep(0.001)

        claiming.cancel()

        with pytest.raises(asyncio.CancelledError):
            await claiming
        assert not memory_files(open_descriptors() - before)


# Results too big to be held


@asynccontextmanager
async def blob_of(size: int) -> AsyncIterator[Blob]:
    """A file of base64 text."""
    descriptor = os.memfd_create("result")
    piece = base64.b64encode(os.urandom(48 * 1024))
    for _ in range(size // len(piece)):
        os.write(descriptor, piece)
    blob = Blob(descriptor, os.fstat(descriptor).st_size)
    try:
        yield blob
    finally:
        blob.close()


async def test_a_big_result_is_sent_whole_and_never_held() -> None:
    async with against(hashing) as (client, server), blob_of(16 * 2**20) as blob:
        tracemalloc.start()
        try:
            await client.complete(FENCE, Succeeded(blob))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        head = b'{"worker_id":"worker 1","attempt":1,"status":"completed","result_b64":"'
        expected = head + os.pread(blob.descriptor, blob.size, 0) + b'"}'
    (request,) = server.requests
    assert request.body == hashlib.sha256(expected).digest()
    assert request.headers["content-length"] == str(len(expected))
    assert "transfer-encoding" not in request.headers
    assert peak < 4 * 2**20


async def test_a_result_at_the_front_of_a_longer_file_is_sent_without_the_rest() -> None:
    async with against(hashing) as (client, server), blob_of(2**20) as blob:
        await client.complete(FENCE, Succeeded(Blob(blob.descriptor, 1000)))

        head = b'{"worker_id":"worker 1","attempt":1,"status":"completed","result_b64":"'
        expected = head + os.pread(blob.descriptor, 1000, 0) + b'"}'
    (request,) = server.requests
    assert request.body == hashlib.sha256(expected).digest()


async def test_a_big_result_can_be_sent_again() -> None:
    async def breaks_once(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if server.connections == 1:
            await server.read_head(reader)
            await reader.read(100_000)
            writer.transport.abort()
        else:
            await hashing(server, reader, writer)

    async with against(breaks_once) as (client, server), blob_of(2**20) as blob:
        with pytest.raises(Unavailable):
            await client.complete(FENCE, Succeeded(blob))

        await client.complete(FENCE, Succeeded(blob))

        assert len(server.requests[1].body) == hashlib.sha256().digest_size


async def test_a_result_that_is_refused_before_it_is_read_is_too_large() -> None:
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with against(refusing_at_the_head(answer)) as (client, _), blob_of(8 * 2**20) as blob:
        with pytest.raises(RequestRejected) as caught:
            await client.complete(FENCE, Succeeded(blob))

    assert caught.value.too_large


async def test_a_big_result_that_is_answered_by_a_page_is_not_taken() -> None:
    async with against(answering(200, b"<html>Log in</html>")) as (client, _), blob_of(2**20) as blob:
        with pytest.raises(Unavailable, match=r"^200 without JSON: "):
            await client.complete(FENCE, Succeeded(blob))


async def test_a_file_that_shrank_is_no_report() -> None:
    async with against(hashing) as (client, server), blob_of(2**20) as blob:
        os.ftruncate(blob.descriptor, 1000)

        with pytest.raises(Unavailable):
            await asyncio.wait_for(client.complete(FENCE, Succeeded(blob)), 5)

    assert server.requests[0].body == b""


# Bytes that belong to no request

EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
STALE = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"ok":false}'
FRESH = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"ok":true}'
IN_CHUNKS = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{"ok":true}\r\n0\r\n\r\n'


def once_with(surplus: bytes, answer: bytes, *, late: bool) -> Behaviour:
    """Give the first connection this answer, with bytes left over; answer well on all others."""

    async def behave(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_first = server.connections == 1
        while True:
            await server.read_request(reader)
            writer.write(answer if late or not is_first else answer + surplus)
            await writer.drain()
            if is_first and late:
                await asyncio.sleep(0.05)  # the client has the whole answer by then, or takes both at once
                writer.write(surplus)
                await reader.read()
                server.hung_up.set()
                return

    return behave


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("answer", [FRESH, IN_CHUNKS])
@pytest.mark.parametrize("surplus", [STALE, STALE[:20], STALE[:1], EMPTY, b"X"])
async def test_a_connection_with_bytes_left_over_is_not_used_again(
    answer: bytes, surplus: bytes, *, late: bool
) -> None:
    async with against(once_with(surplus, answer, late=late)) as (client, server):
        try:
            assert await client.heartbeat(FENCE, timeout=5.0) is Directive.CONTINUE
        except Unavailable:
            assert surplus == b"X"  # which cannot begin an answer: then the whole is none
        if late:
            await asyncio.wait_for(server.hung_up.wait(), 5)
        assert await client.heartbeat(FENCE, timeout=5.0) is Directive.CONTINUE

    assert server.connections == 2


@pytest.mark.parametrize("answer", [FRESH, IN_CHUNKS])
async def test_a_connection_without_bytes_left_over_is_reused_however_the_answer_was_cut(answer: bytes) -> None:
    async def behave(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for cut in (len(answer), 10, len(answer) - 12, len(answer) - 1):
            await server.read_request(reader)
            writer.write(answer[:cut])
            await asyncio.sleep(0.01)
            writer.write(answer[cut:])

    async with against(behave) as (client, server):
        for _ in range(4):
            assert await client.heartbeat(FENCE, timeout=5.0) is Directive.CONTINUE

    assert server.connections == 1
