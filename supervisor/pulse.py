"""When the program was last seen awake: what it finds after it was stopped, or suspended, may be as old as that.

Runs in the parent, on the clock of leases, which counts suspended time too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from supervisor.process.kernel import boottime

INTERVAL = 0.5
LATE = 1.0
"""Seconds after the last beat from when on the program counts as having slept; a busy machine may take a part of it."""
SETTLING = 1.0
"""Seconds after it woke up in which it has read all that had come meanwhile."""


class Pulse:
    """Beats for as long as `run` does."""

    def __init__(self, now: Callable[[], float] = boottime) -> None:
        self._now = now
        self._beat_at = now()
        self._slept_at = self._woke_at = 0.0

    async def run(self) -> None:
        while True:
            self._beat(self._now())
            await asyncio.sleep(INTERVAL)

    def earliest(self, now: float) -> float:
        """When what is read `now` may have come at the earliest."""
        if now > self._beat_at + LATE:
            return self._beat_at
        return self._slept_at if now < self._woke_at + SETTLING else now

    def _beat(self, now: float) -> None:
        if now > self._beat_at + LATE:
            self._slept_at, self._woke_at = self._beat_at, now
        self._beat_at = now
