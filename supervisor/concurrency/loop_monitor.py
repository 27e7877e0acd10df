"""Whether the program is awake: how late its event loop is, and from when on it may have slept.

Runs in the parent.  What the loop does in one piece keeps heartbeats and everything else waiting; and what is found
after the program was stopped, or the machine suspended, may be as old as that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from supervisor.linux.syscalls import boottime

TICK_INTERVAL = 1.0
MAX_LAG_SAMPLES = 10
"""Beats of which the latest counts: ten seconds."""
MIN_STALL = 2.0
"""Seconds without a beat that are a sleep; a busy machine may take a part of one."""
STALL_SETTLE_TIME = 1.0
"""Seconds after it woke up in which it has read all that had come meanwhile."""


class LoopMonitor:
    """Beats for as long as `run` does."""

    def __init__(self, now: Callable[[], float] = boottime) -> None:
        """`now` is the clock of leases, which counts suspended time too."""
        self._now = now
        self._beat_at = now()
        self._slept_at = self._woke_at = 0.0
        self._late: deque[float] = deque([0.0], maxlen=MAX_LAG_SAMPLES)

    @property
    def lag(self) -> float:
        """The seconds by which the loop was late at worst, of late."""
        return max(self._late)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.tick()
            due_at = loop.time() + TICK_INTERVAL
            await asyncio.sleep(TICK_INTERVAL)
            self._late.append(max(0.0, loop.time() - due_at))

    def tick(self) -> None:
        """The loop is awake now."""
        now = self._now()
        if now > self._beat_at + MIN_STALL:
            self._slept_at, self._woke_at = self._beat_at, now
        self._beat_at = now

    def earliest_arrival(self, now: float) -> float:
        """When what is read `now` may have come at the earliest."""
        if now > self._beat_at + MIN_STALL:
            return self._beat_at
        return self._slept_at if now < self._woke_at + STALL_SETTLE_TIME else now

    def stall_before(self, now: float, *, since: float) -> float:
        """The seconds, one more at most, of its last sleep, if it was not awake again before `since`; otherwise 0."""
        if now > self._beat_at + MIN_STALL:  # it has woken up just now
            return now - self._beat_at
        return self._woke_at - self._slept_at if self._woke_at > since else 0.0
