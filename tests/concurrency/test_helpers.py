"""Helpers of a block end with it, and their errors end it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from supervisor.concurrency.helpers import MAX_TIMERS, HelperTasks, prestarted_executor
from tests.harness import GENEROUS


class Helper:
    """Runs until it is cancelled, and tells how far it has come."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended = False

    async def __call__(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


async def test_a_helper_runs_beside_the_block_and_ends_with_it() -> None:
    helper = Helper()

    async with HelperTasks() as beside:
        beside.start(helper)
        await helper.started.wait()
        assert not helper.ended

    assert helper.ended


async def test_a_helper_may_be_done_before_the_block() -> None:
    async def helper() -> None:
        return

    async with HelperTasks() as beside:
        task = beside.start(helper)
        await asyncio.wait([task])

    assert not task.cancelled()


async def test_an_error_in_a_helper_ends_the_block() -> None:
    async def failing() -> None:
        raise ValueError("helper")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - what is tested is that the block ends
        async with HelperTasks() as beside:
            beside.start(failing)
            await asyncio.Event().wait()

    assert [str(error) for error in caught.value.exceptions] == ["helper"]


async def test_an_error_in_the_block_ends_the_helpers() -> None:
    helper = Helper()

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - what is tested is how the block ends
        async with HelperTasks() as beside:
            beside.start(helper)
            await helper.started.wait()
            raise ValueError("block")

    assert [str(error) for error in caught.value.exceptions] == ["block"]
    assert helper.ended


async def test_cancelling_the_block_ends_the_helpers() -> None:
    helper = Helper()

    async def block() -> None:
        async with HelperTasks() as beside:
            beside.start(helper)
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await helper.started.wait()
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert helper.ended


async def test_a_delayed_helper_starts_after_its_delay() -> None:
    helper = Helper()
    began = asyncio.get_running_loop().time()

    async with HelperTasks() as beside:
        beside.start_after(0.02, helper)
        await helper.started.wait()

    assert asyncio.get_running_loop().time() - began >= 0.019
    assert helper.ended


async def test_a_delayed_helper_never_starts_when_the_block_is_over() -> None:
    late = Helper()
    timer_would_have_fired = asyncio.Event()

    async with HelperTasks() as beside:
        beside.start_after(0.001, late)
    asyncio.get_running_loop().call_later(0.005, timer_would_have_fired.set)
    await timer_would_have_fired.wait()

    assert not late.started.is_set()


async def test_a_helper_that_starts_another_is_waited_for_as_well() -> None:
    inner = Helper()

    async with HelperTasks() as beside:

        async def outer() -> None:
            beside.start(inner)

        beside.start(outer)
        await inner.started.wait()

    assert inner.ended


async def test_a_long_block_removes_finished_helpers_and_expired_timers() -> None:
    rung = 0

    async def quick() -> None:
        nonlocal rung
        rung += 1

    async with HelperTasks() as beside:
        for _ in range(100):
            await asyncio.wait([beside.start(quick)])
        for number in range(100):
            beside.start_after(0.0, quick)
            while rung < 101 + number:
                await asyncio.sleep(0.001)

        async with asyncio.timeout(10):
            while beside._helpers:  # the last one has run, and is forgotten in the turn after
                await asyncio.sleep(0)
        assert len(beside._timer_ids) <= MAX_TIMERS


async def test_nothing_starts_when_the_block_is_over() -> None:
    late = Helper()

    async with HelperTasks() as beside:
        assert not beside.is_over

    assert beside.is_over
    assert beside.start(late) is None
    assert not late.started.is_set()


def test_threads_are_there_before_they_are_needed() -> None:
    before = threading.active_count()
    with prestarted_executor(3) as executor:
        ready = threading.active_count() - before
        together = threading.Barrier(3)
        waiting = [executor.submit(together.wait, GENEROUS) for _ in range(3)]
        turns = {wait.result() for wait in waiting}
        busy = threading.active_count() - before

    assert (ready, busy) == (3, 3)
    assert turns == {0, 1, 2}
