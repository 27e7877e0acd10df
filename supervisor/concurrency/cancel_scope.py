"""A block that is ended from outside, as by `asyncio.timeout`, and that is entered thousands of times a second."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import msgspec

from supervisor.concurrency.timers import TimerId, TimerQueue


class CancelScope(msgspec.Struct, eq=False):
    """`with`, by one task at a time, as often as one likes.

    A block that was ended is left without an error, in the middle.
    """

    alarms: TimerQueue
    after: float | None = None
    """Seconds after which it is ended, if nothing else is said later."""
    _alarm: TimerId | None = None
    _task: asyncio.Task[Any] | None = None  # while it is inside
    _others: int = 0
    _is_cut: bool = False

    def cancel_in(self, seconds: float) -> None:
        """End the block in so long, if anybody is inside and it is not over by then; it counts what is said last."""
        if self._task is not None and not self._is_cut:
            if self._alarm is not None:
                self.alarms.cancel(self._alarm)
            self._alarm = self.alarms.after(seconds, self._cut)

    def cancel(self) -> None:
        """End the block now, if anybody is inside."""
        self._cut()

    def __enter__(self) -> CancelScope:
        self._task = task = asyncio.current_task(self.alarms.loop)
        assert task is not None
        self._others = task.cancelling()
        if self.after is not None:
            self._alarm = self.alarms.after(self.after, self._cut)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Swallow the cancellation by which the block was ended, unless the task is to end as a whole."""
        task, self._task = self._task, None
        if self._alarm is not None:
            self.alarms.cancel(self._alarm)
            self._alarm = None
        if not self._is_cut:
            return False
        self._is_cut = False
        assert task is not None
        return task.uncancel() <= self._others and kind is asyncio.CancelledError

    def _cut(self) -> None:
        if self._task is not None and not self._is_cut:  # one cancellation: one is taken back
            self._is_cut = True
            self._task.cancel()
