"""Tells when a Python file in the handlers' folders changes.  Runs in the parent; needs the package watchfiles."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from supervisor.config import ConfigError

DEBOUNCE = 400
"""Milliseconds within which changes count as one: editors and version control write many files at once."""


def require_watchfiles() -> None:
    """Raise `ConfigError` when nothing can be watched."""
    if importlib.util.find_spec("watchfiles") is None:
        raise ConfigError("--watch needs the package watchfiles: pip install 'mobius-supervisor[watch]'")


async def watch(folders: Sequence[Path], changed: Callable[[str], object]) -> None:
    """Call `changed` with what happened after each change, until cancelled."""
    from watchfiles import PythonFilter, awatch

    logging.getLogger("watchfiles").setLevel(logging.INFO)  # below, it says every few seconds that nothing changed
    async for changes in awatch(*folders, watch_filter=PythonFilter(), debounce=DEBOUNCE):
        names = sorted({Path(path).name for _, path in changes})
        changed(f"a change of {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}")
