"""Why a job is stopped: which reason counts, and what is left to its handler."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog.testing

from supervisor.attempt.outcome import CANCELLED, SHUTDOWN, timed_out
from supervisor.attempt.stop import StopRequest, terminate_then_kill

TIMEOUT = timed_out(10)


def test_the_first_reason_counts() -> None:
    stopping = StopRequest()

    assert stopping.accept(TIMEOUT, has_ended=False)
    assert not stopping.accept(SHUTDOWN, has_ended=False)

    assert stopping.reason is TIMEOUT


def test_a_cancel_counts_before_any_other_and_once() -> None:
    stopping = StopRequest()

    assert stopping.accept(TIMEOUT, has_ended=False)
    assert stopping.accept(CANCELLED, has_ended=True)
    assert not stopping.accept(CANCELLED, has_ended=True)

    assert stopping.reason is CANCELLED


def test_once_the_handler_has_ended_only_a_cancel_counts() -> None:
    stopping = StopRequest()

    assert not stopping.accept(TIMEOUT, has_ended=True)
    assert not stopping.accept(SHUTDOWN, has_ended=True)
    assert stopping.reason is None


class Gone:
    """A child that has exited when it was asked to."""

    is_busy = False

    def terminate(self) -> None: ...

    def resend_sigterm(self) -> None: ...

    async def capture_stop_stack(self, _: float) -> None: ...

    async def write_stack(self, _: float) -> bool:
        return False


async def test_a_child_that_exited_within_its_grace_is_not_said_to_be_killed() -> None:
    child: Any = Gone()
    with structlog.testing.capture_logs() as logged:
        async with asyncio.timeout(5):
            await terminate_then_kill(child, 0.05, structlog.get_logger())

    assert logged == []
