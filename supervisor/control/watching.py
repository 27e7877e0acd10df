"""`status --watch`: what `status` shows, again and again in the same place.  Needs the package rich."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from rich.live import Live
from rich.text import Text

INTERVAL = 1.0
"""Seconds between two looks."""


def watch(look: Callable[[], str]) -> None:
    """Show what `look` returns until Ctrl-C; what it raises ends this too."""
    with suppress(KeyboardInterrupt), Live(_shown(look()), auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(INTERVAL)
            live.update(_shown(look()), refresh=True)


def _shown(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="crop")
