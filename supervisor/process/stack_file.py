"""The file to which a child writes its Python stack, on a signal or in a crash.

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
"""Bytes that the parent reads; a child may write more."""
STACK_POLL_INTERVAL = 0.005
"""Seconds between two checks for a complete stack; no event announces it."""

_HERE = Path(__file__).parents[1]
# Frames of tasks are written by Python, which escapes nothing.
_OUR_FRAMES = (f'File "{_HERE}', f'File "{as_dumped(_HERE)}', 'File "<frozen runpy>"')


class StackFile:
    """A file in memory without a name."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("stack", os.MFD_CLOEXEC)
        # Each dump goes to the end, also after `start_job` has truncated the file.
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, os.O_APPEND)
        self._text = ""
        self._was_renewed = False
        self._is_settled = False

    def descriptor(self) -> int:
        """Return a descriptor for a child; the caller closes it."""
        return os.dup(self._descriptor)

    def read(self) -> str:
        """Return the newest stack since `start_job`, "" when there is none; works after `close`."""
        if self._descriptor >= 0 and not self._is_settled:
            written = os.pread(self._descriptor, MAX_STACK_FILE_BYTES, 0)
            if written.strip():
                self._text = _handlers_part(written.decode("utf-8", "backslashreplace"))
        return self._text

    async def is_written(self, within: float) -> bool:
        """Wait up to `within` seconds for the requested stack; return True if it is complete."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + within
        size = 0
        # The child writes the stack in pieces, and no event announces the last one: wait until the size is stable.
        while size == 0 or self._size != size:
            if loop.time() >= give_up_at:
                return False
            size = self._size
            await asyncio.sleep(STACK_POLL_INTERVAL)
        return True

    @property
    def is_begun(self) -> bool:
        """True if the child has begun to write the requested stack."""
        return self._size > 0

    @property
    def _size(self) -> int:
        """Bytes written since `renew`."""
        return os.fstat(self._descriptor).st_size if self._descriptor >= 0 else 0

    def renew(self) -> None:
        """Prepare for a new stack; `read` returns the previous one until the new one is written."""
        self.read()
        self._is_settled = False
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            self._was_renewed = True

    def keep(self) -> bool:
        """Keep the requested stack and ignore later ones until `renew`; return False when there is none yet."""
        self._is_settled = self.is_begun and bool(self.read())
        return self._is_settled

    def start_job(self) -> None:
        """Drop requested stacks of the previous job; only a crash writes an unrequested one."""
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
    """Return the stack without the program's own frames, which are the same for all jobs."""
    lines = stack.strip().splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(_OUR_FRAMES))
