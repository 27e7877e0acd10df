"""Pausing: nothing new is claimed, what runs goes on, and the program stays ready."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from supervisor.devserver.app import DevServer
from supervisor.exit_code import ExitCode
from tests.harness import calls, event, finished_job, logged, program, start_job

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # the program brings its own loop; ours does not matter


async def test_a_pause_ends_the_open_poll_and_nothing_is_claimed_until_it_is_over(
    server: DevServer, state: Path
) -> None:
    async with program(server.url, state) as process:
        long = await start_job(server, "sleeps", {"seconds": 1.0})
        await server.until(lambda: server.jobs(long)[0].status == "claimed")
        await server.until(lambda: calls(server, "claim")[-1].status is None or None)
        process.send_signal(signal.SIGTSTP)
        await logged(state, "paused")
        await server.until(lambda: calls(server, "claim")[-1].answered_at is not None or None)
        claims = len(calls(server, "claim"))

        waiting = await start_job(server, "nothing")
        assert (await finished_job(server, long)).status == "completed"
        assert server.jobs(waiting)[0].status == "pending"
        assert len(calls(server, "claim")) == claims

        process.send_signal(signal.SIGCONT)
        assert (await finished_job(server, waiting)).status == "completed"


async def test_a_job_that_the_last_poll_brings_is_run(server: DevServer, state: Path) -> None:
    async with program(server.url, state, workers="1") as process:
        await logged(state, '"serving"')
        await server.until(lambda: calls(server, "claim")[-1].status is None or None)
        process.send_signal(signal.SIGTSTP)
        await logged(state, "paused: nothing new is claimed")
        run = await start_job(server, "nothing")

        assert (await finished_job(server, run)).status == "completed"
        assert '"open_claims":1' in (state / "log").read_text()


async def test_a_reload_keeps_the_pause(server: DevServer, state: Path) -> None:
    async with program(server.url, state) as process:
        await logged(state, '"serving"')
        process.send_signal(signal.SIGTSTP)
        await logged(state, "paused")
        process.send_signal(signal.SIGHUP)
        await logged(state, '"reloaded"')
        await server.until(lambda: calls(server, "claim")[-1].answered_at is not None or None)
        run = await start_job(server, "nothing")
        claims = len(calls(server, "claim"))
        process.send_signal(signal.SIGUSR1)
        await logged(state, '"dump"')

        assert server.jobs(run)[0].status == "pending"
        assert len(calls(server, "claim")) == claims
        process.send_signal(signal.SIGCONT)
        assert (await finished_job(server, run)).status == "completed"


async def test_who_is_paused_can_be_drained(server: DevServer, state: Path) -> None:
    async with program(server.url, state) as process:
        await logged(state, '"serving"')
        process.send_signal(signal.SIGTSTP)
        await logged(state, "paused")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)  # as systemd does

        assert await process.wait() == ExitCode.DRAINED


async def test_sigusr1_logs_the_tasks_and_where_each_job_is(server: DevServer, state: Path) -> None:
    async with program(server.url, state) as process:
        run = await start_job(server, "python-loop")
        await event(server, run, "working")
        process.send_signal(signal.SIGUSR1)
        await logged(state, '"event":"job"')

        log = (state / "log").read_text()
        assert '"name":"slot 1"' in log
        assert "in python_loop" in log
        assert "supervisor/pool/slot.py" in log
        assert server.jobs(run)[0].status == "claimed"
