"""What dead children leave behind is killed; who belongs here is spared."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from supervisor.process.family import Family, reap
from supervisor.process.kernel import children_of
from tests.harness import is_alive


def sleeper() -> int:
    """A child that does nothing for an hour."""
    return os.posix_spawnp("sleep", ["sleep", "3600"], os.environ)


@dataclass(eq=False)
class Member:
    """A process that may tell its pid only when it is asked."""

    pid: int | None
    will_be: int | None = None

    def catch_up(self) -> None:
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


async def test_strays_are_killed_and_reaped() -> None:
    family = Family()
    strays = [sleeper(), sleeper()]

    assert await family.sweep() == 2

    assert not set(strays) & set(children_of(os.getpid()))


async def test_what_a_stray_has_started_is_swept_as_well() -> None:
    elders = set(children_of(os.getpid()))  # what other tests have left to us, zombies for the most part
    family = Family()
    elders = set(children_of(os.getpid()))
    reading, writing = os.pipe()
    script = "setsid sleep 3600 & (setsid sleep 3600 & setsid sleep 3600 & echo) & wait"
    os.posix_spawnp("sh", ["sh", "-c", script], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)])
    os.close(writing)
    assert os.read(reading, 1) == b"\n"

    await family.sweep()

    assert set(children_of(os.getpid())) <= elders
    assert os.read(reading, 1) == b""  # each of them held the other end
    os.close(reading)


async def test_strays_that_have_ended_are_reaped() -> None:
    family = Family()
    pid = os.posix_spawnp("true", ["true"], os.environ)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    await family.sweep()

    assert pid not in children_of(os.getpid())


async def test_members_are_spared() -> None:
    family = Family()
    pid = sleeper()
    family.join(Member(pid))
    stray = sleeper()

    with living(pid):
        assert await family.sweep() == 1

    assert not is_alive(stray)


async def test_a_newborn_member_whose_pid_is_still_on_its_way_is_spared() -> None:
    family = Family()
    pid = sleeper()
    family.join(Member(None, will_be=pid))

    with living(pid):
        assert await family.sweep() == 0


async def test_a_member_that_has_left_is_a_stray() -> None:
    family = Family()
    member = Member(sleeper())
    family.join(member)

    family.leave(member)
    family.leave(member)

    assert await family.sweep() == 1


async def test_who_was_here_before_us_is_spared() -> None:
    elder = sleeper()
    family = Family()

    with living(elder):
        assert await family.sweep() == 0


async def test_two_sweeps_at_once_do_not_disturb_each_other() -> None:
    family = Family()
    for _ in range(10):
        sleeper()

    swept = await asyncio.gather(family.sweep(), family.sweep())

    assert sum(swept) == 10


async def test_reaping_somebody_elses_process_does_nothing() -> None:
    await asyncio.wait_for(reap(2**22 - 1), 5)
