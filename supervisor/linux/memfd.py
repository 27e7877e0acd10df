"""Data too large for a message: an anonymous file in memory, whose descriptor is sent beside the message.

Children receive parameters and send results in such files.  The parent accepts sealed files only: a child could
otherwise truncate or change its result while the parent reads it.  Tested by tests/process/test_child.py.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterable

from supervisor.job import Blob

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""Seals after which no process can change the file, not even through an open descriptor (memfd_create(2))."""


def create_sealed(name: str, pieces: Iterable[bytes]) -> int:
    """Return a descriptor of a new sealed file that contains `pieces`; raise `OSError` if it cannot be created."""
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
    """True if the descriptor is a file in memory that cannot be changed any more."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
    except OSError:  # another kind of file, such as a regular file or a pipe
        return False


def read(blob: Blob) -> bytes:
    """Return the content of the blob, and close it."""
    try:
        with mmap.mmap(blob.descriptor, 0, prot=mmap.PROT_READ) as content:
            return content[blob.offset : blob.offset + blob.size]
    finally:
        blob.close()
