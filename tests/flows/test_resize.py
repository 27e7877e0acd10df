"""SIGTTIN and SIGTTOU: one child more, one less."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from supervisor.devserver.app import DevServer
from supervisor.exit_code import ExitCode
from tests.harness import calls, finished_job, logged, program, start_job

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # the program brings its own loop; ours does not matter


async def test_one_child_more_runs_one_job_more(server: DevServer, state: Path) -> None:
    async with program(server.url, state, workers="1") as process:
        await logged(state, '"serving"')
        process.send_signal(signal.SIGTTIN)
        await logged(state, '"children":2')
        runs = [await start_job(server, "python-loop") for _ in range(2)]

        await server.until(lambda: all(server.jobs(run)[0].status == "claimed" for run in runs) or None, timeout=20)


async def test_one_child_less_ends_its_job_first_and_there_is_always_one(server: DevServer, state: Path) -> None:
    async with program(server.url, state, workers="2") as process:
        runs = [await start_job(server, "sleeps", {"seconds": 1.5}) for _ in range(2)]
        await server.until(lambda: all(server.jobs(run)[0].status == "claimed" for run in runs) or None, timeout=20)
        for _ in range(3):
            process.send_signal(signal.SIGTTOU)
            await asyncio.sleep(0.05)  # signals of one kind that are pending at once are one signal
        await logged(state, '"not resized: one child is the least"')

        assert [(await finished_job(server, run)).status for run in runs] == ["completed"] * 2
        assert (await finished_job(server, await start_job(server, "nothing"))).status == "completed"
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == ExitCode.DRAINED


async def test_the_number_of_children_changes_with_a_reload(server: DevServer, state: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("workers = 1\n")
    async with program(server.url, state, workers=None, config=str(file)) as process:
        await logged(state, '"serving"')
        file.write_text("workers = 3\n")
        process.send_signal(signal.SIGHUP)
        await logged(state, '"reloaded"')
        runs = [await start_job(server, "python-loop") for _ in range(3)]

        await server.until(lambda: all(server.jobs(run)[0].status == "claimed" for run in runs) or None, timeout=20)
    assert calls(server, "claim")
