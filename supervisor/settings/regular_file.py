"""Files that settings name, read on the event loop: nothing there may keep it waiting."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_regular(path: Path, most: int) -> bytes | None:
    """Up to `most` bytes of a regular file; None for anything else.  Raises `OSError`.

    A pipe is not waited for until somebody writes, nor a device read for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, most) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    finally:
        os.close(descriptor)
