"""How late the event loop is: what it does in one piece keeps heartbeats and everything else waiting."""

from __future__ import annotations

import asyncio
from collections import deque

INTERVAL = 1.0
"""Seconds between two looks."""
REMEMBERED = 10
"""Looks of which the worst counts: ten seconds."""


class LoopLag:
    """Looks for as long as `run` does."""

    def __init__(self) -> None:
        self._late: deque[float] = deque([0.0], maxlen=REMEMBERED)

    @property
    def worst(self) -> float:
        """The seconds by which the loop was late at worst, of late."""
        return max(self._late)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_at = loop.time() + INTERVAL
            await asyncio.sleep(INTERVAL)
            self._late.append(max(0.0, loop.time() - due_at))
