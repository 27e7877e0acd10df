"""`status --watch`: what `status` shows, again and again in the same place.  Needs the package rich."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from os import terminal_size

from rich.console import Console
from rich.live import Live
from rich.text import Text

INTERVAL = 1.0
"""Seconds between two looks."""


def watch(look: Callable[[terminal_size], str]) -> None:
    """Show what `look` returns for the room that there is, until Ctrl-C; what it raises ends this too."""
    console = Console()
    with suppress(KeyboardInterrupt):
        shown = _shown(look(terminal_size(console.size)))  # before the screen is cleared: it may fail
        with Live(shown, console=console, auto_refresh=False, screen=True) as live:
            while True:
                time.sleep(INTERVAL)
                live.update(_shown(look(terminal_size(console.size))), refresh=True)


def _shown(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="crop")
