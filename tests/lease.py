"""A file that other processes cannot open for a while: a real wait in open(2), as on a mount that hangs."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def leased(path: Path) -> Iterator[None]:
    """Hold a lease on `path` inside the block, which must last less than /proc/sys/fs/lease-break-time seconds."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel asks for the lease by this signal
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            pytest.skip(f"this file system has no leases: {error.strerror}")
        yield
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGIO, before)
