"""What dead children leave behind is killed; who belongs here is spared."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from supervisor.linux.syscalls import children_of
from supervisor.process import reaper as family_module
from supervisor.process import reaper as lost
from supervisor.process.reaper import Reaper, reap
from tests.freezer import frozen, needs_a_freezer
from tests.harness import GENEROUS, is_alive


def sleeper() -> int:
    """A child that does nothing for an hour."""
    return os.posix_spawnp("sleep", ["sleep", "3600"], os.environ)


@dataclass(eq=False)
class Member:
    """A process that may tell its pid only when it is asked."""

    pid: int | None
    will_be: int | None = None

    def poll_pid(self) -> None:
        self.pid = self.pid or self.will_be


@contextmanager
def living(*pids: int) -> Iterator[None]:
    """Processes that must still be alive at the end, and are ended then."""
    try:
        yield
        assert all(is_alive(pid) for pid in pids)
    finally:
        for pid in pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


async def test_orphans_are_killed_and_reaped() -> None:
    reaper = Reaper()
    strays = [sleeper(), sleeper()]

    assert await reaper.kill_orphans() == 2

    assert not set(strays) & set(children_of(os.getpid()))


async def test_children_of_orphans_are_killed_too() -> None:
    elders = set(children_of(os.getpid()))  # what other tests have left to us, zombies for the most part
    reaper = Reaper()
    elders = set(children_of(os.getpid()))
    reading, writing = os.pipe()
    script = "setsid sleep 3600 & (setsid sleep 3600 & setsid sleep 3600 & echo) & wait"
    os.posix_spawnp("sh", ["sh", "-c", script], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)])
    os.close(writing)
    assert os.read(reading, 1) == b"\n"

    await reaper.kill_orphans()

    assert set(children_of(os.getpid())) <= elders
    assert os.read(reading, 1) == b""  # each of them held the other end
    os.close(reading)


async def test_orphans_that_have_ended_are_reaped() -> None:
    reaper = Reaper()
    pid = os.posix_spawnp("true", ["true"], os.environ)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    await reaper.kill_orphans()

    assert pid not in children_of(os.getpid())


async def test_registered_processes_are_spared() -> None:
    reaper = Reaper()
    pid = sleeper()
    reaper.register(Member(pid))
    stray = sleeper()

    with living(pid):
        assert await reaper.kill_orphans() == 1

    assert not is_alive(stray)


async def test_a_registered_process_is_spared_before_its_pid_is_known() -> None:
    reaper = Reaper()
    pid = sleeper()
    reaper.register(Member(None, will_be=pid))

    with living(pid):
        assert await reaper.kill_orphans() == 0


async def test_an_unregistered_process_is_an_orphan() -> None:
    reaper = Reaper()
    member = Member(sleeper())
    reaper.register(member)

    reaper.unregister(member)
    reaper.unregister(member)

    assert await reaper.kill_orphans() == 1


async def test_preexisting_children_are_spared() -> None:
    elder = sleeper()
    reaper = Reaper()

    with living(elder):
        assert await reaper.kill_orphans() == 0


async def test_concurrent_kill_orphans_calls_do_not_disturb_each_other() -> None:
    reaper = Reaper()
    for _ in range(10):
        sleeper()

    swept = await asyncio.gather(reaper.kill_orphans(), reaper.kill_orphans())

    assert sum(swept) == 10


@pytest.mark.root("only root can freeze processes")
@needs_a_freezer
async def test_an_unkillable_orphan_is_logged_once_and_reaped_when_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(family_module, "KILL_TIMEOUT", 0.1)
    monkeypatch.setattr(lost, "UNKILLABLE_POLL_INTERVAL", 0.01)
    reaper = Reaper()
    stuck, other = sleeper(), sleeper()

    with capture_logs() as logged:
        with frozen(stuck):
            async with asyncio.timeout(GENEROUS):
                assert await asyncio.gather(reaper.kill_orphans(), reaper.kill_orphans()) in ([1, 0], [0, 1])
                assert await reaper.kill_orphans() == 0  # nobody waits for it any more
            assert is_alive(stuck)
        async with asyncio.timeout(GENEROUS):
            while stuck in children_of(os.getpid()):
                await asyncio.sleep(0.01)

    assert other not in children_of(os.getpid())
    assert [(line["log_level"], line["pid"]) for line in logged] == [("error", stuck), ("info", stuck)]


SWEEPS = """
import asyncio, os, subprocess, sys
from supervisor.child import descendants
from supervisor.process.reaper import Reaper
from supervisor.linux.syscalls import become_subreaper

async def sweep():
    reaper = Reaper()
    reaper._preexisting = frozenset()
    return [await reaper.kill_orphans(), await reaper.kill_orphans()]

become_subreaper()
as_nobody = ["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", "echo; exec sleep 600 >/dev/null"]
theirs = subprocess.Popen(as_nobody, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
theirs.stdout.read(1)
subprocess.Popen(["sleep", "600"])
by_child = descendants.end_all()
subprocess.Popen(["sleep", "600"])
by_parent = asyncio.run(sweep())
print(theirs.pid, by_child, by_parent, sep=";", file=sys.stderr)
"""


@pytest.mark.root("only root can start a process of another user")
def test_orphans_of_another_user_stop_neither_a_child_nor_the_parent() -> None:
    command = ["setpriv", "--bounding-set=-kill", sys.executable, "-W", "ignore", "-c", SWEEPS]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=GENEROUS, check=False)
    pid, by_child, by_parent = ended.stderr.strip().split(";")
    os.kill(int(pid), signal.SIGKILL)

    assert (by_child, by_parent) == ("Ended(killed=1, survived=1)", "[1, 0]")


async def test_reaping_a_foreign_process_does_nothing() -> None:
    await asyncio.wait_for(reap(2**22 - 1), 5)
