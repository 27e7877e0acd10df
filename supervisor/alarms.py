"""Alarms that are mostly taken back before they ring, as those of calls that are answered and jobs that end.

A timer of the loop is set and cancelled with some effort, twice a job or more.  Here an alarm is an entry in a table,
and one timer waits for the first of them: when it finds that entry gone, it goes on to the next one that is left.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

RESOLUTION = 0.001
"""Seconds; loops count in milliseconds, and may call a little early."""


class Alarm:
    """One entry."""

    __slots__ = ("_table", "due_at")

    def __init__(self, table: dict[Alarm, Callable[[], object]], due_at: float) -> None:
        self._table = table
        self.due_at = due_at

    @property
    def is_set(self) -> bool:
        """Whether it is still to ring."""
        return self in self._table

    def cancel(self) -> None:
        """Do not ring; without effect on one that has."""
        self._table.pop(self, None)


class Alarms:
    """The table, of the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._table: dict[Alarm, Callable[[], object]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def after(self, seconds: float, call: Callable[[], object]) -> Alarm:
        """Call `call` in so long, unless the alarm is cancelled before."""
        alarm = Alarm(self._table, self._loop.time() + seconds)
        self._table[alarm] = call
        if alarm.due_at < self._rings_at:
            self._ring_at(alarm.due_at)
        return alarm

    def _ring_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = moment
        self._timer = self._loop.call_at(moment, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, math.inf
        now = self._loop.time() + RESOLUTION
        due = [alarm for alarm in self._table if alarm.due_at <= now]
        if len(due) < len(self._table):
            self._ring_at(min(alarm.due_at for alarm in self._table if alarm.due_at > now))
        for alarm in due:
            call = self._table.pop(alarm, None)
            if call is not None:  # not cancelled by what another one has called
                call()
