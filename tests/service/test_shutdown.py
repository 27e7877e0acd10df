"""Each signal takes a shutdown further, and never back."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import structlog.testing

from supervisor.service.shutdown import Shutdown, Stage

TERM, INT, QUIT = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT


@pytest.mark.parametrize(
    ("signals", "stages"),
    [
        ([TERM, TERM, TERM], [Stage.DRAIN, Stage.STOP, Stage.STOP]),
        ([INT, INT, INT, INT], [Stage.DRAIN, Stage.STOP, Stage.KILL, Stage.KILL]),
        ([QUIT, QUIT], [Stage.STOP, Stage.STOP]),
        ([TERM, INT, INT], [Stage.DRAIN, Stage.STOP, Stage.KILL]),
        ([QUIT, INT], [Stage.STOP, Stage.KILL]),
        ([INT, INT, INT, TERM, QUIT], [Stage.DRAIN, Stage.STOP, Stage.KILL, Stage.KILL, Stage.KILL]),
    ],
)
async def test_each_signal_takes_the_shutdown_to_its_stage(signals: list[signal.Signals], stages: list[Stage]) -> None:
    shutdown = Shutdown()
    seen = []

    with shutdown.signals():
        for number in signals:
            told = asyncio.create_task(advanced(shutdown))
            await asyncio.sleep(0)  # it waits from here on
            os.kill(os.getpid(), number)
            await told
            seen.append(shutdown.stage)

    assert seen == stages


async def advanced(shutdown: Shutdown) -> None:
    """Wait until a signal was reacted to, whether it changed the stage or not."""
    reacted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    shutdown._changed.append(reacted)
    async with asyncio.timeout(5):
        await reacted


async def test_outside_the_block_signals_have_their_usual_meaning() -> None:
    shutdown = Shutdown()

    with shutdown.signals():
        pass

    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it comes with the signal or at the next turn of the loop
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert shutdown.stage is Stage.SERVE


def test_ctrl_c_says_what_the_next_one_would_do() -> None:
    shutdown = Shutdown()

    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            shutdown.interrupt()

    assert [entry["event"] for entry in logged] == [
        "finishing the jobs that run; once more: stop them",
        "stopping the jobs that run; once more: kill them and leave",
    ]


async def test_whoever_waits_for_a_stage_is_told_when_it_is_reached_or_passed() -> None:
    shutdown = Shutdown()
    waiters = [asyncio.create_task(shutdown.reached(stage)) for stage in (Stage.DRAIN, Stage.STOP)]
    await asyncio.sleep(0)

    shutdown.advance(Stage.STOP)

    await asyncio.wait_for(asyncio.gather(*waiters), 5)


async def test_an_earlier_stage_does_not_wake_who_waits_for_a_later_one() -> None:
    shutdown = Shutdown()
    waiter = asyncio.create_task(shutdown.reached(Stage.STOP))
    await asyncio.sleep(0)

    shutdown.advance(Stage.DRAIN)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert not waiter.done()
    shutdown.advance(Stage.STOP)
    await asyncio.wait_for(waiter, 5)


async def test_a_stage_that_is_reached_already_is_not_waited_for() -> None:
    shutdown = Shutdown()
    shutdown.advance(Stage.KILL)

    await asyncio.wait_for(shutdown.reached(Stage.DRAIN), 5)


async def test_waiting_for_a_stage_ends_at_its_timeout() -> None:
    shutdown = Shutdown()

    await asyncio.wait_for(shutdown.reached(Stage.DRAIN, timeout=0.01), 5)

    assert shutdown.stage is Stage.SERVE


async def test_waiting_for_a_stage_can_be_cancelled() -> None:
    shutdown = Shutdown()
    waiter = asyncio.create_task(shutdown.reached(Stage.DRAIN))
    await asyncio.sleep(0)

    waiter.cancel()
    await asyncio.wait([waiter])
    shutdown.advance(Stage.DRAIN)

    assert waiter.cancelled()


def test_a_shutdown_never_goes_back() -> None:
    shutdown = Shutdown()
    shutdown.advance(Stage.STOP)

    shutdown.advance(Stage.DRAIN)

    assert shutdown.stage is Stage.STOP
