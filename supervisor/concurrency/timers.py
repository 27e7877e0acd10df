"""Alarms that are mostly taken back before they ring, as those of calls that are answered and jobs that end.

A timer of the loop is set and cancelled with some effort, twice a job or more.  Here an alarm is an entry in a table,
and one timer waits for the first of them: when it finds that entry gone, it goes on to the next one that is left.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable

TIMER_RESOLUTION = 0.001
"""Seconds; loops count in milliseconds, and may call a little early."""
MAX_TIMER_DELAY = 0.5
"""Seconds.  A ring that comes later than that comes after we were stopped, or stood still for another reason."""
MIN_TIMER_DELAY = 0.005
"""Seconds in which the loop takes in what has come meanwhile."""


TimerId = int
"""The number of an entry."""


class TimerQueue:
    """The table, of the running loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._table: dict[TimerId, tuple[float, Callable[[], object]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def after(self, seconds: float, call: Callable[[], object]) -> TimerId:
        """Call `call` in so long, unless the alarm is cancelled before."""
        alarm, due_at = next(self._numbers), self.loop.time() + seconds
        self._table[alarm] = due_at, call
        if due_at < self._rings_at:
            self._ring_at(due_at)
        return alarm

    def is_set(self, alarm: TimerId) -> bool:
        """Whether it is still to ring."""
        return alarm in self._table

    def cancel(self, alarm: TimerId) -> None:
        """Do not ring; without effect on one that has."""
        self._table.pop(alarm, None)

    def _ring_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = moment
        self._timer = self.loop.call_at(moment, self._ring)

    def _ring(self) -> None:
        now = self.loop.time() + TIMER_RESOLUTION
        was_due_at, self._timer, self._rings_at = self._rings_at, None, math.inf
        if now > was_due_at + MAX_TIMER_DELAY:
            # A loop calls its timers before it reads: the answer that an alarm waits for may lie there, with a job.
            self._ring_at(now + MIN_TIMER_DELAY)
            return
        due = [alarm for alarm, (due_at, _) in self._table.items() if due_at <= now]
        if len(due) < len(self._table):
            self._ring_at(min(due_at for due_at, _ in self._table.values() if due_at > now))
        for alarm in due:
            if alarm in self._table:  # not cancelled by what another one has called
                _, call = self._table.pop(alarm)
                call()
