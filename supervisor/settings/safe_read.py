"""Files that settings name.  No pipe and no device is waited for; a file system may be: see `bounded_read`."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_regular(path: Path, most: int) -> bytes | None:
    """Up to `most` bytes of a regular file; None for anything else.  Raises `OSError`.

    A pipe is not waited for until somebody writes, nor a device read for ever.
    """
    found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return None
        # By its descriptor: another file may have the name by now.  Not O_NONBLOCK: while another process holds a lease
        # on the file, as file servers do for moments, it would fail (fcntl(2), F_SETLEASE).
        descriptor = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)
