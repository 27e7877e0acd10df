"""Tells when a Python file in the handlers' folders changes.  Runs in the parent; needs the package watchfiles."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

DEBOUNCE = 400
"""Milliseconds within which changes count as one: editors and version control write many files at once."""


class Watch:
    """Owns which folders are watched."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._moved = asyncio.Event()

    def use(self, folders: Sequence[Path]) -> None:
        """Watch these from now on."""
        if folders != self._folders:
            self._folders = folders
            self._moved.set()

    async def run(self, changed: Callable[[str], object]) -> None:
        """Call `changed` with what happened after each change, until cancelled."""
        from watchfiles import PythonFilter, awatch

        logging.getLogger("watchfiles").setLevel(logging.INFO)  # below, it says every few seconds that nothing changed
        while True:
            self._moved.clear()
            async for changes in awatch(
                *self._folders, watch_filter=PythonFilter(), debounce=DEBOUNCE, stop_event=self._moved
            ):
                names = sorted({Path(path).name for _, path in changes})
                changed(f"a change of {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}")
