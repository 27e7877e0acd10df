"""The server asks to stop a job: whatever its handler does, it is stopped, reported once, and nothing of it is left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from supervisor.devserver.app import DevServer
from tests.harness import best, calls, event, finished_job, is_alive, reports, result_of, start_job, supervising

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on; children are tested on both

STOPS_ON_SIGTERM = ["python-loop", "with-subprocess", "with-own-session", "with-daemon"]
MUST_BE_KILLED = ["c-call", "ignores-sigterm", "swallows-the-cancel"]
GRACE = 0.3


async def cancelled_job(server: DevServer, state: Path, action: str, **parameters: Any) -> tuple[Any, list[int]]:
    """Cancel a job while its handler works; return the job and the pids it had told."""
    async with supervising(server, state, cancel_grace=f"{GRACE * 1000:.0f}ms"):
        run = await start_job(server, action, parameters)
        working = await event(server, run, "working")
        await server.cancel_run(run)
        job = await finished_job(server, run)
        left = [pid for pid in working["pids"] if is_alive(pid)]
    return job, left


async def seconds_to_report(server: DevServer, state: Path, action: str) -> float:
    """From the answer that asked to cancel to the report."""
    async with supervising(server, state, cancel_grace=f"{GRACE * 1000:.0f}ms"):
        run = await start_job(server, action)
        await event(server, run, "working")
        asked_after = time.monotonic()
        await server.cancel_run(run)
        job = await finished_job(server, run)
    (report,) = reports(server, job.id)
    return report.received_at - cancelling_beats(server, job.id, asked_after)[0]


def cancelling_beats(server: DevServer, job_id: str, asked_after: float) -> list[float]:
    """When heartbeats were answered by a request to cancel: all those that came after the run was cancelled."""
    beats = [beat for beat in calls(server, "heartbeat", job_id) if beat.received_at > asked_after]
    return [beat.answered_at for beat in beats if beat.answered_at is not None]


@pytest.mark.parametrize("action", STOPS_ON_SIGTERM + MUST_BE_KILLED)
async def test_a_cancelled_job_is_reported_once_and_nothing_of_it_is_alive(
    server: DevServer, state: Path, action: str
) -> None:
    job, left = await cancelled_job(server, state, action)

    (report,) = reports(server, job.id)
    assert (report.body["status"], report.body["error_type"]) == ("failed", "Cancelled")
    assert left == []


@pytest.mark.parametrize("action", STOPS_ON_SIGTERM)
async def test_a_handler_that_stops_is_reported_within_150_ms(server: DevServer, state: Path, action: str) -> None:
    assert await best(lambda: seconds_to_report(server, state, action), below=0.15) < 0.15


@pytest.mark.parametrize("action", MUST_BE_KILLED)
async def test_a_handler_that_does_not_stop_is_reported_150_ms_after_its_grace(
    server: DevServer, state: Path, action: str
) -> None:
    limit = GRACE + 0.15

    assert GRACE <= await best(lambda: seconds_to_report(server, state, action), below=limit) < limit


async def test_finally_blocks_run_within_the_grace(server: DevServer, state: Path, tmp_path: Path) -> None:
    note = tmp_path / "note"

    _, left = await cancelled_job(server, state, "cleans-up", note=str(note))

    assert note.read_text() == "cleaned up"
    assert left == []


async def test_a_coroutine_is_cancelled_at_its_await(server: DevServer, state: Path, tmp_path: Path) -> None:
    note = tmp_path / "note"

    job, _ = await cancelled_job(server, state, "async-sleep", note=str(note))

    assert note.read_text() == "cleaned up"
    assert reports(server, job.id)[0].body["error_type"] == "Cancelled"


async def test_the_slot_takes_the_next_job_with_a_new_child(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1"):
        run = await start_job(server, "python-loop")
        working = await event(server, run, "working")
        await server.cancel_run(run)
        await finished_job(server, run)

        job = await finished_job(server, await start_job(server, "pid"))

    assert result_of(reports(server, job.id)[0]) not in working["pids"]


async def test_what_a_handler_leaves_behind_ends_with_its_job(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        run = await start_job(server, "leaves-a-daemon")
        working = await event(server, run, "working")
        job = await finished_job(server, run)

        assert job.status == "completed"
        assert [pid for pid in working["pids"][1:] if is_alive(pid)] == []


async def test_a_handler_that_succeeds_after_its_timeout_has_succeeded(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        job = await finished_job(server, await start_job(server, "succeeds-when-stopped"))

    assert reports(server, job.id)[0].body["status"] == "completed"


async def test_heartbeats_go_on_until_the_child_is_gone(server: DevServer, state: Path) -> None:
    async with supervising(server, state, cancel_grace="1s"):
        run = await start_job(server, "ignores-sigterm")
        await event(server, run, "working")
        asked_after = time.monotonic()
        await server.cancel_run(run)
        job = await finished_job(server, run)

    # A second of grace is five heartbeat intervals of this server.
    assert len(cancelling_beats(server, job.id, asked_after)) >= 3
