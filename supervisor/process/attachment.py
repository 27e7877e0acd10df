"""What is too big for a frame: bytes in a file without a name, whose descriptor travels beside the message.

Used in the parent for parameters, and in children for results.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable


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


def take(descriptor: int) -> bytes:
    """All that the file holds; closes it."""
    try:
        with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as content:
            return bytes(content)
    finally:
        os.close(descriptor)
