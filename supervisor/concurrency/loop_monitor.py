"""Measures event-loop lag and detects stalls: a stopped process (SIGSTOP) or a suspended machine.

Runs in the parent.  A blocked loop delays heartbeats and everything else.  Data that is read after a stall may have
arrived at its beginning.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from supervisor.linux.syscalls import boottime

TICK_INTERVAL = 1.0
MAX_LAG_SAMPLES = 10
"""Ticks of which the latest counts: ten seconds."""
MIN_STALL = 2.0
"""Seconds without a tick that count as a stall; a busy machine may delay a tick by less."""
STALL_SETTLE_TIME = 1.0
"""Seconds after a stall within which the loop has read all data that arrived during the stall."""


class LoopMonitor:
    """Records a tick every second while `run` runs."""

    def __init__(self, now: Callable[[], float] = boottime) -> None:
        """`now` is the clock of leases, which includes suspended time."""
        self._now = now
        self._ticked_at = now()
        self._stalled_at = self._resumed_at = 0.0
        self._lags: deque[float] = deque([0.0], maxlen=MAX_LAG_SAMPLES)

    @property
    def lag(self) -> float:
        """Largest delay of the loop within the last ten seconds."""
        return max(self._lags)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.tick()
            due_at = loop.time() + TICK_INTERVAL
            await asyncio.sleep(TICK_INTERVAL)
            self._lags.append(max(0.0, loop.time() - due_at))

    def tick(self) -> None:
        """Record that the loop is running now."""
        now = self._now()
        if now > self._ticked_at + MIN_STALL:
            self._stalled_at, self._resumed_at = self._ticked_at, now
        self._ticked_at = now

    def earliest_arrival(self, now: float) -> float:
        """Return the earliest time at which data that is read `now` may have arrived."""
        if now > self._ticked_at + MIN_STALL:
            return self._ticked_at
        return self._stalled_at if now < self._resumed_at + STALL_SETTLE_TIME else now

    def stall_before(self, now: float, *, since: float) -> float:
        """Return the length of the last stall (up to one second too long) if it ended after `since`, else 0."""
        if now > self._ticked_at + MIN_STALL:  # the stall has just ended
            return now - self._ticked_at
        return self._resumed_at - self._stalled_at if self._resumed_at > since else 0.0
