"""A suspend is noticed at once: what a suspend does to the clocks is what setting one does to them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from supervisor.concurrency.suspend import on_resume
from supervisor.devserver.app import DevServer
from tests.harness import GENEROUS, finished_job, start_job, supervising
from tests.process_world import open_descriptors


def set_the_clock() -> None:
    """Set it to what it is, but for some microseconds; skips where that is not allowed."""
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME))
    except PermissionError:
        pytest.skip("setting the clock is not permitted here")


@pytest.mark.root("only root can set the clock")
async def test_each_jump_of_the_clock_is_told() -> None:
    before = open_descriptors()
    told = asyncio.Semaphore(0)

    with on_resume(told.release):
        for _ in range(3):
            set_the_clock()
            await asyncio.wait_for(told.acquire(), GENEROUS)

    assert not open_descriptors() - before


@pytest.mark.root("only root can set the clock")
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_lease_that_lives_survives_a_jump_of_the_clock(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        run = await start_job(server, "sleeps", {"seconds": 0.5})
        await server.until(lambda: server.jobs(run)[0].status == "claimed" or None, timeout=GENEROUS)
        set_the_clock()
        job = await finished_job(server, run)

    assert (job.status, job.attempt) == ("completed", 1)
