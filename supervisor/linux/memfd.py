"""What is too big for a frame: bytes in a file without a name, whose descriptor travels beside the message.

Runs in children: parameters come so, and results leave so.  The parent looks whether what it is given is sealed: a
result that its child could still cut or change might be read for ever in vain.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterable

from supervisor.job import Blob

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""With these nobody changes a file any more, whoever else has it open (memfd_create(2))."""


def create_sealed(name: str, pieces: Iterable[bytes]) -> int:
    """A descriptor of a new file that holds `pieces` for good; raise `OSError` when there is none to be had."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.writelines(pieces)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_sealed(descriptor: int) -> bool:
    """Whether it is a file in memory, of which nothing can be changed any more."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
    except OSError:  # it is something else, a file on a disk or a pipe
        return False


def read(blob: Blob) -> bytes:
    """All that the blob holds; closes it."""
    try:
        with mmap.mmap(blob.descriptor, 0, prot=mmap.PROT_READ) as content:
            return content[blob.offset : blob.offset + blob.size]
    finally:
        blob.close()
