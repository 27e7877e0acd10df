"""Processes that the parent inherits are collected soon after their end, and no others."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from supervisor.devserver.app import DevServer
from supervisor.linux.syscalls import children_of, has_ended
from supervisor.process import orphan_watch
from supervisor.process.orphan_watch import OrphanWatch
from supervisor.process.reaper import Reaper
from tests.harness import GENEROUS, logged, program
from tests.process_world import world


def orphan(seconds: float) -> int:
    """A process that loses its parent, and so is given to this one, which is a subreaper."""
    script = f"sleep {seconds} >/dev/null 2>&1 & echo $!"
    return int(subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout)


async def gone(pid: int) -> None:
    """Wait until not even a zombie is left."""
    async with asyncio.timeout(GENEROUS):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.01)


async def test_an_orphan_is_reaped_when_it_ends_and_left_alone_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphan_watch, "CHECK_INTERVAL", 0.01)
    reaping = asyncio.ensure_future(OrphanWatch(Reaper()).run())
    short, long = orphan(0.05), orphan(600)

    await gone(short)

    assert long in children_of(os.getpid())
    assert not has_ended(long)
    os.kill(long, 9)
    await gone(long)
    reaping.cancel()


async def test_a_preexisting_child_is_reaped_and_its_pid_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphan_watch, "CHECK_INTERVAL", 0.01)
    Reaper()  # from here on this process is a subreaper
    elder = orphan(0.05)
    reaper = Reaper()
    assert elder in reaper._preexisting
    reaping = asyncio.ensure_future(OrphanWatch(reaper).run())

    await gone(elder)

    assert elder not in reaper._preexisting
    reaping.cancel()


async def test_a_registered_process_is_left_to_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphan_watch, "CHECK_INTERVAL", 0.0)
    async with world() as here:
        reaping = asyncio.ensure_future(OrphanWatch(here.reaper).run())
        for _ in range(10):
            child = await here.child()
            assert child.pid is not None
            os.kill(child.pid, 9)
            async with asyncio.timeout(GENEROUS):
                await child.wait()
            assert child.exit_report is not None
            assert child.exit_report.reason == "was killed by SIGKILL"
        reaping.cancel()


async def test_the_program_reaps_inherited_processes_while_it_serves(server: DevServer, tmp_path: Path) -> None:
    becomes_it = ("sh", "-c", 'sleep 0.2 & exec "$@"', "sh")

    async with program(server.url, tmp_path / "state", becomes_it, workers="1") as supervisor:
        await logged(tmp_path / "state", "serving")

        def names() -> list[str]:
            return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in children_of(supervisor.pid)]

        async with asyncio.timeout(GENEROUS):
            while "sleep" in names():
                await asyncio.sleep(0.05)
