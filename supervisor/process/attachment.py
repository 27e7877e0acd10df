"""What is too big for a frame: bytes in a file without a name, whose descriptor travels beside the message.

Runs in children: parameters come so, and results leave so.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable

from supervisor.job import Blob


def attachment(name: str, pieces: Iterable[bytes]) -> int:
    """A descriptor of a new file that holds `pieces`; raise `OSError` when there is none to be had."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.writelines(pieces)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def take(blob: Blob) -> bytes:
    """All that the blob holds; closes it."""
    try:
        with mmap.mmap(blob.descriptor, 0, prot=mmap.PROT_READ) as content:
            return content[blob.offset : blob.offset + blob.size]
    finally:
        blob.close()
