"""Display of the demo: on a terminal one updated line per job, otherwise one line per change.

Tested by tests/demo/test_program.py.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TextIO

import click

from supervisor.demo.jobs import JobState
from supervisor.text.printable import escaped

_COLOURS = {"completed": "green", "cancelled": "yellow", "failed": "red", "running": "cyan", "stopping": "yellow"}
_LONGEST_BAR = 40
_HEADINGS = ("JOB", "ATTEMPTS", "STATUS", "SECONDS", "WHAT CAME OUT")
_STATUS = _HEADINGS.index("STATUS")


class Board(Protocol):
    """Shows the state of all jobs."""

    def show(self, standings: Sequence[JobState]) -> None:
        """Show the current state.  Called after each change, and regularly to update the elapsed times."""


def board_for(stream: TextIO) -> Board:
    """Return the board for a terminal or for another stream."""
    return Screen(stream) if is_terminal(stream) else Lines(stream, time.monotonic)


def is_terminal(stream: TextIO) -> bool:
    """True if the stream supports colours and cursor movement."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Screen:
    """One line per job, in place."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn = 0

    def show(self, standings: Sequence[JobState]) -> None:
        width = shutil.get_terminal_size().columns
        back = f"\x1b[{self._drawn}A" if self._drawn else ""
        lines = [f"\r{line(standing, width)}\x1b[K\n" for standing in standings]
        self._stream.write(back + "".join(lines))
        self._stream.flush()
        self._drawn = len(standings)


class Lines:
    """Writes a line with the elapsed time when a job's status changes, or when another quarter of it is done."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._began_at = clock()
        self._shown: dict[str, tuple[object, ...]] = {}

    def show(self, standings: Sequence[JobState]) -> None:
        for standing in standings:
            state = (standing.status, standing.attempt, min(3, math.floor(4 * (standing.part or 0))))
            if self._shown.get(standing.job.title, ("waiting", 1, 0)) != state:
                elapsed = self._clock() - self._began_at
                self._stream.write(f"{elapsed:5.1f} s  {standing.job.title}: {_state(standing)}\n")
            self._shown[standing.job.title] = state
        self._stream.flush()


def line(standing: JobState, width: int) -> str:
    """Title, bar, state and seconds in `width` columns, the last one left free so that no terminal wraps."""
    title = f"  {standing.job.title:<24}"
    state = f"  {_state(standing):<24}"
    seconds = _seconds(standing)
    room = width - len(title) - len(state) - len(seconds) - 1
    if room < 4:
        return f"{title}{state}{seconds}"[: width - 1]
    return title + bar(standing.part, min(room, _LONGEST_BAR)) + painted(state, standing.status) + seconds


def bar(part: float | None, width: int) -> str:
    """Return a progress bar; dots when the progress is unknown."""
    full = math.floor((part or 0.0) * width)
    return "█" * full + ("·" if part is None else "░") * (width - full)


def painted(text: str, status: str) -> str:
    """`text` in the colour of a status, unless the user wants none (no-color.org)."""
    if os.environ.get("NO_COLOR") or status not in _COLOURS:
        return text
    return click.style(text, fg=_COLOURS[status])


def table(standings: Sequence[JobState], *, in_colour: bool) -> str:
    """Return a table of all outcomes."""
    rows = [_HEADINGS, *map(_row, standings)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    if in_colour:
        for row, standing in zip(padded[1:], standings, strict=True):
            row[_STATUS] = painted(row[_STATUS], standing.status)
    return "".join("  ".join(row).rstrip() + "\n" for row in padded)


def _row(standing: JobState) -> tuple[str, ...]:
    figures = (str(standing.attempt), standing.status, f"{standing.seconds or 0:.1f}")
    return (standing.job.title, *figures, escaped(standing.said))


def _state(standing: JobState) -> str:
    attempt = f", attempt {standing.attempt}" if standing.attempt > 1 else ""
    is_measured = standing.status == "running" and standing.part is not None
    part = f" {standing.part:.0%}" if is_measured else ""
    return f"{standing.status}{part}{attempt}"


def _seconds(standing: JobState) -> str:
    return " " * 7 if standing.seconds is None else f"{standing.seconds:5.1f} s"
