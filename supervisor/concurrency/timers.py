"""Timers that are usually cancelled before they expire, such as timeouts of calls and of jobs.

Setting and cancelling a timer of the loop is expensive, and a job needs two or more.  Here a timer is an entry in a
table, and one timer of the loop waits for the earliest entry.  If that entry is cancelled, it waits for the next one.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable

TIMER_RESOLUTION = 0.001
"""Seconds.  Event loops count in milliseconds, and may call slightly early."""
MAX_TIMER_DELAY = 0.5
"""Seconds.  A longer delay of the loop's timer means that the process was stopped or blocked."""
MIN_TIMER_DELAY = 0.005
"""Seconds within which the loop reads data that arrived meanwhile."""


TimerId = int
"""Number of an entry."""


class TimerQueue:
    """Timers of the running event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._table: dict[TimerId, tuple[float, Callable[[], object]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._expires_at = math.inf

    def after(self, seconds: float, call: Callable[[], object]) -> TimerId:
        """Call `call` in `seconds`, unless the timer is cancelled before."""
        timer, due_at = next(self._numbers), self.loop.time() + seconds
        self._table[timer] = due_at, call
        if due_at < self._expires_at:
            self._arm(due_at)
        return timer

    def is_set(self, timer: TimerId) -> bool:
        """True if the timer has neither expired nor been cancelled."""
        return timer in self._table

    def cancel(self, timer: TimerId) -> None:
        """Cancel a timer; without effect after it has expired."""
        self._table.pop(timer, None)

    def _arm(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._expires_at = moment
        self._timer = self.loop.call_at(moment, self._expire)

    def _expire(self) -> None:
        now = self.loop.time() + TIMER_RESOLUTION
        expected_at, self._timer, self._expires_at = self._expires_at, None, math.inf
        if now > expected_at + MAX_TIMER_DELAY:
            # A loop runs timers before it reads sockets: the awaited answer, perhaps with a job, may be there already.
            self._arm(now + MIN_TIMER_DELAY)
            return
        due = [timer for timer, (due_at, _) in self._table.items() if due_at <= now]
        if len(due) < len(self._table):
            self._arm(min(due_at for due_at, _ in self._table.values() if due_at > now))
        for timer in due:
            if timer in self._table:  # not cancelled by the call of another timer
                _, call = self._table.pop(timer)
                call()
