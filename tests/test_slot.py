"""What a slot holds of a job it gives up, however early that is."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from supervisor.job import Blob, Fence, Job, Outcome, Succeeded
from supervisor.ledger import Ledger
from supervisor.limits import Limits
from supervisor.pool import Pool
from supervisor.report import Reporter
from supervisor.spool import Spool
from supervisor.spoolfile import Destination
from supervisor.surroundings import Rules
from tests.harness import GENEROUS, zygote_of
from tests.process_world import World, a_job, world


class Dispenser:
    """A job server that hands out a first job, then a big one; from then on no child can be forked."""

    def __init__(self) -> None:
        self.big = a_job("fresh", text="x" * 2_000_000)
        self.claimed = 0
        self.handed_out = asyncio.Event()

    async def claim(self, *_: object, **__: object) -> Job:
        self.claimed += 1
        if self.claimed == 1:
            return a_job("two-per-child")
        os.kill(zygote_of(os.getpid()), signal.SIGSTOP)
        self.handed_out.set()
        return self.big

    async def complete(self, fence: Fence, outcome: Outcome) -> None:
        """Accept whatever it is."""


def pool_of(here: World, server: Dispenser, state: Path) -> Pool:
    ledger = Ledger()
    return Pool(
        1,
        rules=Rules("worker 1", 30.0, Limits(), None, None, state),
        server=server,
        reporter=Reporter(server, Spool(state), Destination("http://nowhere", "acme"), 60.0, ledger),
        ledger=ledger,
        family=here.family,
        zygote=here.zygote,
    )


async def test_a_job_that_is_dropped_before_it_has_a_child_is_held_no_longer(tmp_path: Path) -> None:
    server = Dispenser()
    async with world() as here:
        pool = pool_of(here, server, tmp_path)
        running = asyncio.create_task(pool.run())
        async with asyncio.timeout(GENEROUS):
            await server.handed_out.wait()
        await asyncio.sleep(0)  # the slot has it now, and asks for a child

        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        assert isinstance(server.big.parameters, Blob)
        assert server.big.parameters.descriptor < 0
        assert pool.take(server.big)


class Buggy(Dispenser):
    """Its first claim shows a bug; then it has one job, and nothing more."""

    def __init__(self) -> None:
        super().__init__()
        self.completed: list[Outcome] = []
        self.done = asyncio.Event()

    async def claim(self, *_: object, **__: object) -> Job | None:
        self.claimed += 1
        if self.claimed == 1:
            raise ZeroDivisionError("a bug of ours")
        if self.claimed == 2:
            return a_job("nothing")
        await asyncio.sleep(GENEROUS)
        return None

    async def complete(self, _fence: Fence, outcome: Outcome) -> None:
        self.completed.append(outcome)
        self.done.set()


async def test_a_bug_in_one_turn_ends_neither_its_slot_nor_the_others(tmp_path: Path) -> None:
    server = Buggy()
    async with world() as here:
        pool = pool_of(here, server, tmp_path)
        running = asyncio.create_task(pool.run())
        async with asyncio.timeout(GENEROUS):
            await server.done.wait()

        assert server.completed == [Succeeded(None)]
        assert not running.done()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
