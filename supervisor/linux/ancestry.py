"""Ancestor processes that have a secret in their environment.  Runs once, at the start of the parent.

A wrapper such as `sh -c` or `tini` keeps the environment that it was started with.  The supervisor removes the key from
its own environment, but cannot remove it from that of a wrapper.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_ANCESTORS = 64
"""Ancestors that are checked; chains of wrappers are much shorter."""
MAX_ENVIRON_BYTES = 4 * 1024 * 1024
"""Bytes of one environment that are read; Linux allows 6 MiB for arguments and environment (execve(2))."""


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A parent of this process, its parent, and so on."""

    pid: int
    name: str


def ancestors_with(secret: str) -> list[Ancestor]:
    """Return the ancestors whose environment would show `secret` to jobs, the nearest first."""
    value = secret.encode()
    return [found for found in _ancestors() if value in _values(found.pid)]


def _ancestors() -> Iterator[Ancestor]:
    pid = os.getppid()
    for _ in range(MAX_ANCESTORS):
        if pid <= 0:
            return
        try:
            before, _, after = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")  # proc_pid_stat(5)
        except OSError:  # hidden from this user, or the process has exited
            return
        yield Ancestor(pid, before.partition(b"(")[2].decode("utf-8", "replace"))
        pid = int(after.split()[1])


def _values(pid: int) -> set[bytes]:
    """Return the values in the initial environment of a process; none if it cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read(MAX_ENVIRON_BYTES).split(b"\0")
    except OSError:  # of another user, or not dumpable: jobs cannot read it either
        return set()
    return {entry.partition(b"=")[2] for entry in entries}
