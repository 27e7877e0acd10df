"""A program with a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import termios
from collections.abc import Sequence
from typing import IO


def on_a_terminal(
    arguments: Sequence[str], *, output: IO[bytes] | None = None, **environment: str
) -> tuple[subprocess.Popen[bytes], int]:
    """The program, and its terminal's other side, which the caller closes; without an `output` it writes there too."""
    ours, theirs = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "supervisor", *arguments],
            env={**os.environ, **environment},
            stdin=theirs,
            stdout=output or theirs,
            stderr=output or theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    finally:
        os.close(theirs)
    return process, ours
