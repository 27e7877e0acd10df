"""Standard input as the place of a secret: read to its end once, and then gone.  Runs in the parent, before any fork.

Whatever is started later finds /dev/null there, and so does whoever looks at the parent's descriptors.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

NUMBER = 0


@dataclass(frozen=True, slots=True)
class StandardInputKey:
    """What was read, and the file that it came from, if our user can read that by its name."""

    content: bytes = field(repr=False)
    file: Path | None


def read_standard_input(longest: int) -> StandardInputKey:
    """Read up to `longest` bytes, or the end, and put /dev/null in its place.  Raises `OSError`."""
    if sys.stdin is None:  # it was closed when we came: whatever has its number now is something else
        raise OSError(errno.EBADF, "it is closed")
    if os.isatty(NUMBER):
        raise OSError(errno.ENOTTY, "it is a terminal, which would show the key")
    try:
        return StandardInputKey(_content(longest), _file())
    finally:
        _replace()


def _content(longest: int) -> bytes:
    content = b""
    while len(content) < longest and (piece := os.read(NUMBER, longest - len(content))):
        content += piece
    return content


def _file() -> Path | None:
    status = os.fstat(NUMBER)
    if not stat.S_ISREG(status.st_mode):
        return None
    path = Path(f"/proc/self/fd/{NUMBER}").readlink()
    try:
        is_there = os.path.samestat(path.stat(), status)
    except OSError:  # removed, or hidden from us
        return None
    return path if is_there and (status.st_uid == os.geteuid() or os.access(path, os.R_OK)) else None


def _replace() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, NUMBER)
    os.close(null)
