"""`status --watch`: refreshes the output of `status` in place.  Needs the package rich."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from os import terminal_size
from typing import NoReturn

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

INTERVAL = 1.0
"""Seconds between two refreshes."""


def watch(look: Callable[[terminal_size | None], str]) -> None:
    """Show what `look` returns for the terminal's size until Ctrl-C.  Exceptions of `look` propagate."""
    console = Console()
    with suppress(KeyboardInterrupt):
        if not console.is_terminal:
            _print_on(look)
        shown = _shown(look(terminal_size(console.size)))  # may fail, so before the screen is cleared
        with Live(shown, console=console, auto_refresh=False, screen=True) as live:
            while True:
                time.sleep(INTERVAL)
                live.update(_shown(look(terminal_size(console.size))), refresh=True)


def _print_on(look: Callable[[terminal_size | None], str]) -> NoReturn:
    """Print the whole status repeatedly until the reader exits: a pipe cannot be refreshed in place."""
    while True:
        click.echo(look(None))
        time.sleep(INTERVAL)


def _shown(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="crop")
