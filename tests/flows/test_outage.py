"""The server is away, slow, or makes no sense: nothing spins, nothing is lost that can be kept."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from supervisor.devserver.app import DevServer
from supervisor.devserver.call_log import Call, HangUp, LoseAnswer
from tests.harness import calls, events, finished_job, reports, start_job, supervising

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on


def misbehave(server: DevServer, name: str, times: int, what: Any) -> list[Call]:
    """Have the first calls of one kind go wrong: `what` is an exception to raise, or makes an answer."""
    seen: list[Call] = []

    async def intercept(call: Call) -> web.StreamResponse | None:
        if call.name != name or len(seen) == times:
            return None
        seen.append(call)
        if isinstance(what, type):
            raise what
        response: web.StreamResponse = what()
        return response

    server.intercept = intercept
    return seen


def unavailable() -> web.Response:
    return web.Response(status=503)


def limited() -> web.Response:
    return web.Response(status=429, headers={"Retry-After": "1"})


def nonsense() -> web.Response:
    return web.Response(body=b"<html>a proxy's own page</html>", content_type="text/html")


@pytest.mark.parametrize("what", [HangUp, unavailable, limited])
@pytest.mark.parametrize("name", ["events", "complete", "heartbeat", "claim"])
async def test_a_call_that_fails_twice_is_repeated_and_the_job_completes_once(
    server: DevServer, state: Path, name: str, what: Any
) -> None:
    seen = misbehave(server, name, 2, what)
    async with supervising(server, state, workers="1"):
        run = await start_job(server, "emits-then-sleeps", {"count": 150, "seconds": 0.6})
        job = await finished_job(server, run)

    assert (job.status, job.attempt) == ("completed", 1)
    assert [payload["number"] for payload in events(server, run, "tick")] == list(range(150))
    assert seen
    assert [call.status for call in reports(server, job.id)][-1] == 204


async def test_a_report_whose_answer_was_lost_is_delivered_once(server: DevServer, state: Path) -> None:
    seen = misbehave(server, "complete", 1, LoseAnswer)
    async with supervising(server, state):
        job = await finished_job(server, await start_job(server, "nothing"))
        await server.until(lambda: len(reports(server, job.id)) == 2)

    assert job.status == "completed"
    assert len(seen) == 1


async def test_one_bad_event_is_dropped_and_the_others_arrive(server: DevServer, state: Path) -> None:
    refused: list[int] = []

    async def refuse_17(call: Call) -> web.StreamResponse | None:
        if call.name != "events" or {"number": 17} not in [event["payload"] for event in call.body["events"]]:
            return None
        refused.append(len(call.body["events"]))
        return web.Response(status=400)

    server.intercept = refuse_17
    async with supervising(server, state):
        run = await start_job(server, "emits", {"count": 100})
        job = await finished_job(server, run)

    assert job.status == "completed"
    assert [payload["number"] for payload in events(server, run, "tick")] == [n for n in range(100) if n != 17]
    assert refused[-1] == 1


@pytest.mark.parametrize(("status", "error_type"), [(400, "ResultRejected"), (413, "ResultTooLarge")])
async def test_a_result_that_the_server_refuses_is_reported_as_such(
    server: DevServer, state: Path, status: int, error_type: str
) -> None:
    misbehave(server, "complete", 1, lambda: web.Response(status=status))
    async with supervising(server, state):
        job = await finished_job(server, await start_job(server, "echo", {"text": "hello"}))

    assert (job.status, job.error_type) == ("failed", error_type)


async def test_claims_that_make_no_sense_are_survived(server: DevServer, state: Path) -> None:
    misbehave(server, "claim", 2, nonsense)
    async with supervising(server, state):
        job = await finished_job(server, await start_job(server, "nothing"))

    assert job.status == "completed"


async def test_empty_answers_at_once_are_no_reason_to_spin(server: DevServer, state: Path) -> None:
    async def nothing_to_do(call: Call) -> web.StreamResponse | None:
        return web.Response(status=204) if call.name == "claim" else None

    server.intercept = nothing_to_do
    async with supervising(server, state, workers="8"):
        await server.until(lambda: calls(server, "claim") or None)
        await asyncio.sleep(1.0)  # a second of what could be a busy loop
        asked = len(calls(server, "claim"))

    assert asked < 20


async def test_a_server_that_comes_up_late_is_found(state: Path, unused_tcp_port: int) -> None:
    from supervisor.devserver.app import DevServerSettings
    from tests.harness import Supervisor, settings_for

    supervisor = Supervisor(settings_for(f"http://127.0.0.1:{unused_tcp_port}", state), {})
    supervisor.start()
    try:
        await asyncio.sleep(0.5)  # long enough for refused connections
        async with DevServer(DevServerSettings(port=unused_tcp_port)) as server:
            job = await finished_job(server, await start_job(server, "nothing"))
    finally:
        assert supervisor.task is not None
        supervisor.task.cancel()
        await asyncio.wait([supervisor.task])

    assert job.status == "completed"


@pytest.mark.parametrize("interval", [0, -5, 1e9, "soon", None])
async def test_an_absurd_heartbeat_interval_harms_no_job(server: DevServer, state: Path, interval: Any) -> None:
    job = {"job_id": "a/b ..", "run_id": "r", "action": "pid", "attempt": 1, "heartbeat_interval_seconds": interval}
    handed: list[int] = []

    async def hand_out(call: Call) -> web.StreamResponse | None:
        if call.name == "claim" and not handed:
            handed.append(1)
            return web.json_response({**job, "unknown": "field"})
        if call.name == "complete":
            return web.Response(status=204)
        return None

    server.intercept = hand_out
    async with supervising(server, state):
        await server.until(lambda: calls(server, "complete") or None)

    (report,) = calls(server, "complete")
    assert (report.job_id, report.body["status"]) == ("a/b ..", "completed")


async def test_after_a_429_no_slot_claims_for_as_long_as_the_server_asks(server: DevServer, state: Path) -> None:
    runs = [await start_job(server, "sleeps", {"seconds": 0.05}) for _ in range(8)]
    limited_at: list[float] = []

    async def limit(call: Call) -> web.StreamResponse | None:
        if call.name != "claim" or limited_at or len(calls(server, "claim")) < 4:
            return None
        limited_at.append(call.received_at)
        return limited()

    server.intercept = limit
    async with supervising(server, state, workers="4"):
        for run in runs:
            await finished_job(server, run)

    # Polls that were open already may come back; no new one is opened.
    opened = [call.received_at - limited_at[0] for call in calls(server, "claim")]
    assert [moment for moment in opened if 0.1 < moment < 0.95] == []
