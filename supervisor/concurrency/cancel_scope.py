"""A block that another task or a timeout can end, cheaper than `asyncio.timeout` for thousands of uses a second."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import msgspec

from supervisor.concurrency.timers import TimerId, TimerQueue


class CancelScope(msgspec.Struct, eq=False):
    """Reusable scope for `with`, entered by one task at a time.

    A cancelled block ends at its current await, without an error after the block.
    """

    timers: TimerQueue
    after: float | None = None
    """Seconds after which the block is cancelled; `cancel_in` replaces this."""
    _timer: TimerId | None = None
    _task: asyncio.Task[Any] | None = None  # the task inside the block
    _other_cancellations: int = 0
    _is_cancelled: bool = False

    def cancel_in(self, seconds: float) -> None:
        """Cancel the block in `seconds`, if a task is still inside; replaces an earlier delay."""
        if self._task is not None and not self._is_cancelled:
            if self._timer is not None:
                self.timers.cancel(self._timer)
            self._timer = self.timers.after(seconds, self.cancel)

    def cancel(self) -> None:
        """Cancel the block now, if a task is inside."""
        if self._task is not None and not self._is_cancelled:
            self._is_cancelled = True  # at most one cancellation, because `__exit__` takes back one
            self._task.cancel()

    def __enter__(self) -> CancelScope:
        self._task = task = asyncio.current_task(self.timers.loop)
        assert task is not None
        self._other_cancellations = task.cancelling()
        if self.after is not None:
            self._timer = self.timers.after(self.after, self.cancel)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Suppress the cancellation of this scope, but not a cancellation of the whole task."""
        task, self._task = self._task, None
        if self._timer is not None:
            self.timers.cancel(self._timer)
            self._timer = None
        if not self._is_cancelled:
            return False
        self._is_cancelled = False
        assert task is not None
        return task.uncancel() <= self._other_cancellations and kind is asyncio.CancelledError
