"""A block that is ended from outside, as by `asyncio.timeout`, and that is entered thousands of times a second."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from supervisor.alarms import Alarm, Alarms


class Interruptible:
    """`with`, by one task at a time, as often as one likes.

    A block that was ended is left without an error, in the middle.
    """

    __slots__ = ("_after", "_alarm", "_alarms", "_is_cut", "_others", "_task")

    def __init__(self, alarms: Alarms, after: float | None = None) -> None:
        """It is ended `after` so many seconds, if that is not said later."""
        self._alarms = alarms
        self._after = after
        self._alarm: Alarm | None = None
        self._task: asyncio.Task[Any] | None = None  # while it is inside
        self._others = 0
        self._is_cut = False

    def end_in(self, seconds: float) -> None:
        """End the block in so long, if anybody is inside and it is not over by then; it counts what is said last."""
        if self._task is not None and not self._is_cut:
            if self._alarm is not None:
                self._alarms.cancel(self._alarm)
            self._alarm = self._alarms.after(seconds, self._cut)

    def end(self) -> None:
        """End the block now, if anybody is inside."""
        if not self._is_cut:
            self._cut()

    def __enter__(self) -> Interruptible:
        self._task = task = asyncio.current_task(self._alarms.loop)
        assert task is not None
        self._others = task.cancelling()
        if self._after is not None:
            self._alarm = self._alarms.after(self._after, self._cut)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Swallow the cancellation by which the block was ended, unless the task is to end as a whole."""
        task, self._task = self._task, None
        if self._alarm is not None:
            self._alarms.cancel(self._alarm)
            self._alarm = None
        if not self._is_cut:
            return False
        self._is_cut = False
        assert task is not None
        return task.uncancel() <= self._others and kind is asyncio.CancelledError

    def _cut(self) -> None:
        if self._task is not None:
            self._is_cut = True
            self._task.cancel()
