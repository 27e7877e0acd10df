"""Atomic files: complete or absent even when the writer is killed, and locked by one process at a time.

An open descriptor holds the lock from the first byte on (flock(2)).  Blocks on the disk, so it runs in threads.
Tested by tests/reporting/test_spool.py.
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
"""Suffix of a file's name while it is written."""
CHUNK_BYTES = 256 * 1024


def create(folder: Directory, name: str, write: Callable[[int], None]) -> int:
    """Create or replace a file whose content `write` writes.  Return its descriptor, which holds the lock."""
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
    with contextlib.suppress(OSError):  # the file exists; at worst it does not survive a power failure
        folder.sync()
    return descriptor


def link_or_copy(descriptor: int, folder: Directory, name: str) -> None:
    """Link the open file `descriptor` into `folder`, or copy it.  Keep an existing file of that name."""
    try:
        folder.link(descriptor, name)
    except FileExistsError:
        return
    except OSError:  # some file systems have no hard links
        os.close(create(folder, name, lambda new: _copy(descriptor, new)))


def lock(folder: Directory, name: str) -> int:
    """Lock a file and return the descriptor that holds the lock; raise `BlockingIOError` when it is locked."""
    with opened(folder, name) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The previous owner of the lock may have removed or replaced the file.
        if not folder.holds(name, descriptor):
            raise FileNotFoundError(name)
        return os.dup(descriptor)  # the lock lasts until the last descriptor of the open file is closed


@contextmanager
def opened(folder: Directory, name: str) -> Iterator[int]:
    """Open a file for reading within the block."""
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
