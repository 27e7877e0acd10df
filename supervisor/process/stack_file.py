"""Where a child's Python stack is written when it is asked for, or when the child crashes.

Runs in the parent, which owns the file; the child's `faulthandler` writes to it from a signal handler in C, so that it
works inside a C call, with the GIL held, and in the middle of a crash.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

from supervisor.process.fatal_error import as_dumped

MAX_STACK_FILE_BYTES = 16 * 1024
"""Bytes that are read; a child may write what it likes."""
STACK_POLL_INTERVAL = 0.005
"""Seconds until one looks again whether a stack is there, all of it, which nothing tells."""

_HERE = Path(__file__).parents[1]
# Frames of tasks are written by Python, which escapes nothing.
_OUR_FRAMES = (f'File "{_HERE}', f'File "{as_dumped(_HERE)}', 'File "<frozen runpy>"')


class StackFile:
    """A file in memory without a name."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("stack", os.MFD_CLOEXEC)
        # Each dump goes to the end, wherever that is after `forget`.
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, os.O_APPEND)
        self._text = ""
        self._was_renewed = False
        self._is_settled = False

    def descriptor(self) -> int:
        """A descriptor for a child, to be closed by whoever takes it."""
        return os.dup(self._descriptor)

    def read(self) -> str:
        """The newest stack since `forget`, "" when there is none; still there after `close`."""
        if self._descriptor >= 0 and not self._is_settled:
            written = os.pread(self._descriptor, MAX_STACK_FILE_BYTES, 0)
            if written.strip():
                self._text = _handlers_part(written.decode("utf-8", "backslashreplace"))
        return self._text

    async def is_written(self, within: float) -> bool:
        """Wait until the stack that was asked for is there, or for so many seconds."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + within
        size = 0
        # It is written in pieces, and nothing tells of the last one.
        while size == 0 or self._size != size:
            if loop.time() >= give_up_at:
                return False
            size = self._size
            await asyncio.sleep(STACK_POLL_INTERVAL)
        return True

    @property
    def is_begun(self) -> bool:
        """Whether something of the stack that was asked for is there."""
        return self._size > 0

    @property
    def _size(self) -> int:
        """Bytes that were written since `renew`."""
        return os.fstat(self._descriptor).st_size if self._descriptor >= 0 else 0

    def renew(self) -> None:
        """Another stack was asked for; until it is there the one before it counts."""
        self.read()
        self._is_settled = False
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            self._was_renewed = True

    def keep(self) -> bool:
        """Whether the stack that was asked for is there; what is written after it, until `renew`, does not count."""
        self._is_settled = self.is_begun and bool(self.read())
        return self._is_settled

    def start_job(self) -> None:
        """A new job begins.  A stack that nobody asked for is the last thing that a child writes."""
        if self._was_renewed:
            os.ftruncate(self._descriptor, 0)
            self._text = ""
            self._was_renewed = self._is_settled = False

    def close(self) -> None:
        if self._descriptor >= 0:
            self.read()
            os.close(self._descriptor)
            self._descriptor = -1


def _handlers_part(stack: str) -> str:
    """The stack without our own frames below the handler's, which are the same for all jobs."""
    lines = stack.strip().splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(_OUR_FRAMES))
