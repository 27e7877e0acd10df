"""The lease is lost: the child and all that it started are killed at once, and nothing is reported."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import structlog.testing
from aiohttp import web

from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.devserver.call_log import Call, HangUp
from supervisor.process.readable import wait_readable
from tests.harness import (
    GENEROUS,
    best,
    calls,
    event,
    finished_job,
    logged,
    program,
    reports,
    result_of,
    start_job,
    supervising,
)

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on

STUBBORN = ["python-loop", "c-call", "ignores-sigterm", "with-subprocess", "with-own-session", "with-daemon"]


def refuse(server: DevServer, names: set[str], status: int) -> list[float]:
    """Answer every call of these kinds by a status; the list holds when that was."""
    answered: list[float] = []

    async def intercept(call: Call) -> web.StreamResponse | None:
        if call.name not in names:
            return None
        answered.append(time.monotonic())
        return web.json_response({"error": {"code": "conflict", "message": "the fence is stale"}}, status=status)

    server.intercept = intercept
    return answered


async def ended(pids: list[int]) -> float:
    """Wait until none of these processes runs any more; return when that was."""
    descriptors = []
    for pid in pids:
        with suppress(ProcessLookupError):  # it has ended already
            descriptors.append(os.pidfd_open(pid))
    await asyncio.gather(*map(wait_readable, descriptors))
    for descriptor in descriptors:
        os.close(descriptor)
    return time.monotonic()


async def seconds_from_refusal_to_death(server: DevServer, state: Path, action: str, status: int) -> float:
    async with supervising(server, state, workers="1", cancel_grace="1m"):
        run = await start_job(server, action)
        working = await event(server, run, "working")
        (job,) = server.jobs(run)
        end = asyncio.create_task(ended(working["pids"]))
        refused = refuse(server, {"heartbeat"}, status)
        last_death = await end
        server.intercept = None
        # The slot goes on, with a new child.
        other = await finished_job(server, await start_job(server, "pid"))
        assert result_of(reports(server, other.id)[0]) not in working["pids"]
    assert len(refused) == 1
    assert reports(server, job.id) == []
    assert [call for call in calls(server, "events", job.id) if call.received_at > refused[0]] == []
    return last_death - refused[0]


@pytest.mark.parametrize("status", [404, 409])
@pytest.mark.parametrize("action", STUBBORN)
async def test_a_refused_heartbeat_kills_everything_within_100_ms_and_nothing_more_is_said(
    server: DevServer, state: Path, action: str, status: int
) -> None:
    assert await best(lambda: seconds_from_refusal_to_death(server, state, action, status), below=0.1) < 0.1


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
async def test_a_job_whose_report_is_refused_is_not_said_to_be_killed(
    server: DevServer, state: Path, status: int
) -> None:
    refused = refuse(server, {"complete"}, status)
    with structlog.testing.capture_logs() as lines:
        async with supervising(server, state, workers="1"):
            await start_job(server, "nothing")
            # What is refused as such is reported once more, without the result.
            await server.until(lambda: len(refused) == (1 if status in (404, 409) else 2))
            server.intercept = None
            await finished_job(server, await start_job(server, "nothing"))

    (lost,) = [line for line in lines if line["event"].startswith("lease lost")]
    assert lost["event"] == "lease lost before the server took the outcome"
    assert f"{status} conflict: the fence is stale" in lost["reason"]


async def test_a_job_that_runs_is_said_to_be_killed(server: DevServer, state: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        async with supervising(server, state, workers="1"):
            run = await start_job(server, "python-loop")
            await event(server, run, "working")
            refuse(server, {"heartbeat"}, 409)
            await server.until(lambda: [call for call in calls(server, "heartbeat") if call.status == 409] or None)
            server.intercept = None
            await finished_job(server, await start_job(server, "nothing"))

    (lost,) = [line for line in lines if line["event"].startswith("lease lost")]
    assert lost["event"] == "lease lost: killed, nothing more is reported"


async def test_a_lease_that_is_lost_while_the_supervisor_stands_still_is_told_so(
    server: DevServer, state: Path
) -> None:
    async with program(server.url, state, lease_ttl="1s", workers="1") as process:
        run = await start_job(server, "python-loop")
        await event(server, run, "working")
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(2.5)
        process.send_signal(signal.SIGCONT)
        await logged(state, "no heartbeat was accepted for 1 s; the supervisor itself stood still for about ")


async def test_refused_events_kill_the_child_too(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1"):
        refused = refuse(server, {"events"}, 409)
        run = await start_job(server, "python-loop")
        await server.until(lambda: refused or None)
        server.intercept = None
        await finished_job(server, await start_job(server, "nothing"))

    assert reports(server, server.jobs(run)[0].id) == []


async def test_a_silent_server_loses_the_lease_at_its_time_to_live(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1", lease_ttl="700ms"):
        run = await start_job(server, "python-loop")
        working = await event(server, run, "working")
        (job,) = server.jobs(run)
        end = asyncio.create_task(ended(working["pids"]))
        silent_since = time.monotonic()

        async def hang_up(call: Call) -> None:
            if call.name != "claim":
                raise HangUp

        server.intercept = hang_up
        died_at = await end
        server.intercept = None

    # The last accepted beat was sent at most one interval (200 ms) before the silence began.
    assert 0.4 < died_at - silent_since < GENEROUS
    assert all(call.status in (None, 499) for call in reports(server, job.id))


async def test_a_short_silence_is_not_noticed_by_the_job(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1", lease_ttl="10s"):
        run = await start_job(server, "sleeps", {"seconds": 1.2})
        await server.until(lambda: calls(server, "heartbeat") or None)
        hung_up: list[Call] = []

        async def hang_up(call: Call) -> None:
            if call.name == "heartbeat" and len(hung_up) < 3:
                hung_up.append(call)
                raise HangUp

        server.intercept = hang_up
        job = await finished_job(server, run)

    assert job.status == "completed"
    assert len(hung_up) == 3


async def test_an_idempotent_handler_computes_on_through_silence(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1", lease_ttl="300ms"):
        run = await start_job(server, "sleeps-idempotently", {"seconds": 1.0})
        await server.until(lambda: calls(server, "heartbeat") or None)

        async def hang_up(call: Call) -> None:
            if call.name == "heartbeat":
                raise HangUp

        server.intercept = hang_up
        await server.until(lambda: calls(server, "complete") or None)
        job_id = server.jobs(run)[0].id

    assert [call.body["status"] for call in reports(server, job_id)] == ["completed"]


@pytest.mark.parametrize("action", ["sleeps", "sleeps-idempotently"])
async def test_a_server_that_wants_no_heartbeat_for_a_minute_gets_the_next_one_in_time(
    state: Path, action: str
) -> None:
    async with DevServer(DevServerSettings(heartbeat_interval=0.3, lease_ttl=2, journal=True)) as server:
        limited: list[Call] = []

        async def limit(call: Call) -> web.Response | None:
            if call.name != "heartbeat" or limited:
                return None
            limited.append(call)
            return web.Response(status=429, headers={"Retry-After": "60"})

        server.intercept = limit
        async with supervising(server, state, workers="1", lease_ttl="2s"):
            job = await finished_job(server, await start_job(server, action, {"seconds": 2.5}))

    assert limited
    assert (job.status, job.attempt) == ("completed", 1)


async def test_a_refused_report_is_dropped(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1"):
        refused = refuse(server, {"complete"}, 409)
        run = await start_job(server, "nothing")
        await server.until(lambda: refused or None)
        server.intercept = None
        await finished_job(server, await start_job(server, "nothing"))

    assert len(reports(server, server.jobs(run)[0].id)) == 1
