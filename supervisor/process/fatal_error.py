"""The report of a crash that Python prints as the last thing of all (`faulthandler`): what it was, and in which code.

Runs in the parent, which hands on what a zygote prints, line by line.  No I/O.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

MAX_FRAMES = 3
"""Frames that are kept, innermost first; the log has all of them."""

_TITLE = "Fatal Python error: "
_FRAME = '  File "'
_PLACE = re.compile(r' *File "(.+)", line ([0-9]{1,9}) in ')


def as_dumped(path: str | Path) -> str:
    """Return a path as `faulthandler` writes it, which escapes what is beyond ASCII (`_Py_DumpASCII` in CPython)."""
    return str(path).encode("ascii", "backslashreplace").decode()


# What lies below each module, and is no news to its author: importlib, runpy and our own.
_MACHINERY = tuple(f"{_FRAME}{as_dumped(path)}" for path in ("<frozen ", importlib.__file__, Path(__file__).parents[1]))


class FatalErrorParser:
    """The newest one among all that is printed."""

    def __init__(self) -> None:
        self._title = ""
        self._frames: list[str] = []
        self._places: list[tuple[str, int]] = []
        self._is_of_the_crash = False  # the thread whose frames come next

    def feed(self, line: str) -> None:
        """Parse a line of output; ignore lines that are not part of a report."""
        _, title, error = line.partition(_TITLE)  # it may stand behind something that was printed without a newline
        if title:
            self._title, self._frames, self._places, self._is_of_the_crash = title + error, [], [], False
        elif line.startswith(("Thread ", "Current thread ")):
            self._is_of_the_crash = line.startswith("Current")
        elif self._is_of_the_crash and line.startswith(_FRAME) and not line.startswith(_MACHINERY):
            self._frames = [*self._frames, line.strip()][:MAX_FRAMES]
            if place := _PLACE.match(line):
                self._places.append((place[1], int(place[2])))

    def place_in(self, folder: Path) -> tuple[str, int]:
        """Return file and line of the innermost frame below `folder`; "" and 1 when there was none."""
        inside = [place for place in self._places if Path(place[0]).is_relative_to(as_dumped(folder))]
        return inside[0] if inside else ("", 1)

    @property
    def sentence(self) -> str:
        """The error and its first frames; "" when there was none."""
        return "; ".join([self._title, *self._frames]) if self._title else ""
