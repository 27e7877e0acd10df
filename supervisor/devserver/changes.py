"""Tells whoever waits that something may be different now."""

from __future__ import annotations

import asyncio


class ChangeSignal:
    """One event after the other, each set once.

    Take `upcoming` first, then look at the state, then wait for it: what happens in between is not missed.
    """

    def __init__(self) -> None:
        self.upcoming = asyncio.Event()

    def announce(self) -> None:
        self.upcoming.set()
        self.upcoming = asyncio.Event()
