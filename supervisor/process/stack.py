"""Where a child's Python stack is written when it is asked for, or when the child crashes.

Runs in the parent, which owns the file; the child's `faulthandler` writes to it from a signal handler in C, so that it
works inside a C call, with the GIL held, and in the middle of a crash.
"""

from __future__ import annotations

import fcntl
import os

LONGEST = 16 * 1024
"""Bytes that are read; a child may write what it likes."""


class StackFile:
    """A file in memory without a name."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("stack", os.MFD_CLOEXEC)
        # Each dump goes to the end, wherever that is after `forget`.
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, os.O_APPEND)
        self._text = ""

    def descriptor(self) -> int:
        """A descriptor for a child, to be closed by whoever takes it."""
        return os.dup(self._descriptor)

    def read(self) -> str:
        """What was written since `forget`, its end when it is long; still there after `close`."""
        if self._descriptor >= 0:
            size = os.fstat(self._descriptor).st_size
            written = os.pread(self._descriptor, LONGEST, max(0, size - LONGEST))
            self._text = written.decode("utf-8", "backslashreplace").strip()
        return self._text

    def forget(self) -> None:
        """A new job begins."""
        os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        if self._descriptor >= 0:
            self.read()
            os.close(self._descriptor)
            self._descriptor = -1
