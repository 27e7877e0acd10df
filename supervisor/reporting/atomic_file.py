"""Files that are whole or absent, whenever their writer is killed, and that belong to one process at a time.

A lock is held from the first byte on, by an open descriptor (flock(2)).  Blocks on the disk, so it runs in threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from supervisor.linux.directory import Directory

UNFINISHED = ".unfinished"
"""Ending of the name that a file has while it is written."""
CHUNK_BYTES = 256 * 1024
"""Bytes that are copied at once."""


def create(folder: Directory, name: str, write: Callable[[int], None]) -> int:
    """Have `write` fill a new file; return its descriptor, which holds its lock.  It replaces a file of that name."""
    unfinished = f".{name}.{secrets.token_hex(4)}{UNFINISHED}"
    descriptor = folder.open_file(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        write(descriptor)
        folder.rename(unfinished, name)
    except BaseException:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            folder.unlink(unfinished)
        raise
    with contextlib.suppress(OSError):  # the file is there; at worst it does not survive a loss of power
        folder.sync()
    return descriptor


def link_or_copy(descriptor: int, folder: Directory, name: str) -> None:
    """Have the open file `descriptor` in `folder` as well; what is there already is left."""
    try:
        folder.link(descriptor, name)
    except FileExistsError:
        return
    except OSError:  # some file systems have no second name for a file
        os.close(create(folder, name, lambda new: _copy(descriptor, new)))


def lock(folder: Directory, name: str) -> int:
    """Return a descriptor that holds the lock of a file; raise `BlockingIOError` when another process holds it."""
    with opened(folder, name) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The process that had the lock before may have removed or replaced the file.
        if not folder.holds(name, descriptor):
            raise FileNotFoundError(name)
        return os.dup(descriptor)  # the lock belongs to the open file, and stays with the last of its descriptors


@contextmanager
def opened(folder: Directory, name: str) -> Iterator[int]:
    """A descriptor to read from, inside the block."""
    descriptor = folder.open_file(name, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _copy(source: int, target: int) -> None:
    offset = 0
    while piece := os.pread(source, CHUNK_BYTES, offset):
        offset += len(piece)
        while piece:
            piece = piece[os.write(target, piece) :]
