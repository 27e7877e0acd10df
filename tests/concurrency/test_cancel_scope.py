"""A block that is ended from outside."""

import asyncio
import time

import pytest

from supervisor.concurrency.cancel_scope import CancelScope
from supervisor.concurrency.timers import TimerQueue

GENEROUS = 20.0


async def test_a_block_ends_when_its_time_is_over_and_its_task_goes_on():
    with CancelScope(TimerQueue()) as block:
        block.cancel_in(0.01)
        await asyncio.sleep(GENEROUS)
        raise AssertionError("not reached")

    await asyncio.sleep(0)  # the task is not cancelled
    assert asyncio.current_task().cancelling() == 0


async def test_somebody_else_may_end_it():
    block = CancelScope(TimerQueue())

    async def wait() -> str:
        with block:
            await asyncio.sleep(GENEROUS)
        return "ended"

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    block.cancel_in(0.0)

    assert await asyncio.wait_for(task, GENEROUS) == "ended"


async def test_what_is_left_in_time_is_left_alone():
    block = CancelScope(TimerQueue())
    with block:
        block.cancel_in(0.01)

    await asyncio.sleep(0.05)
    block.cancel_in(0.0)  # nobody is inside
    with block:
        await asyncio.sleep(0.01)


async def test_the_last_word_counts():
    with CancelScope(TimerQueue()) as block:
        block.cancel_in(0.01)
        block.cancel_in(GENEROUS)
        await asyncio.sleep(0.05)
        return
    raise AssertionError("not reached")


async def test_a_cancellation_of_the_task_is_not_swallowed():
    block = CancelScope(TimerQueue())

    async def wait() -> None:
        with block:
            await asyncio.sleep(GENEROUS)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    block.cancel_in(0.0)
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def sleep_inside(error: type[Exception] | None = None) -> None:
    with CancelScope(TimerQueue()) as block:
        block.cancel_in(GENEROUS)
        if error is not None:
            raise error
        await asyncio.sleep(GENEROUS)


async def test_an_error_inside_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        await sleep_inside(ZeroDivisionError)


async def test_a_timeout_around_it_still_works():
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sleep_inside(), 0.01)


async def test_it_ends_at_once_though_what_it_waits_for_has_come():
    block = CancelScope(TimerQueue())
    came = asyncio.Event()
    seen = []

    async def wait() -> None:
        with block:
            await came.wait()
            seen.append("went on")

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    came.set()
    block.cancel()
    await asyncio.wait_for(task, GENEROUS)

    assert seen == []


async def test_it_is_ended_once_however_often_that_is_said():
    block = CancelScope(TimerQueue())

    async def wait() -> int:
        with block:
            await asyncio.sleep(GENEROUS)
        return asyncio.current_task().cancelling()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    block.cancel_in(0.0)
    time.sleep(0.01)  # so that the alarm rings in the turn that comes
    asyncio.get_running_loop().call_soon(block.cancel)
    block.cancel()

    assert await asyncio.wait_for(task, GENEROUS) == 0
