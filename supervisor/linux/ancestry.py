"""Processes above this one that have a secret in their environment.  Runs in the parent, at its start.

A wrapper such as `sh -c` or `tini` keeps the environment that it was started with.  The supervisor takes the key out of
its own, and cannot take it out of the wrapper's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_ANCESTORS = 64
"""Processes that are looked at; chains of wrappers are shorter by far."""
MAX_ENVIRON_BYTES = 4 * 1024 * 1024
"""Bytes of one environment that are looked at; Linux allows 6 MiB for arguments and environment (execve(2))."""


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A process above this one."""

    pid: int
    name: str


def ancestors_with(secret: str) -> list[Ancestor]:
    """Return the processes above this one that jobs could read `secret` from, the nearest first."""
    value = secret.encode()
    return [found for found in _ancestors() if value in _values(found.pid)]


def _ancestors() -> Iterator[Ancestor]:
    pid = os.getppid()
    for _ in range(MAX_ANCESTORS):
        if pid <= 0:
            return
        try:
            before, _, after = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")  # proc_pid_stat(5)
        except OSError:  # hidden from this user, or gone
            return
        yield Ancestor(pid, before.partition(b"(")[2].decode("utf-8", "replace"))
        pid = int(after.split()[1])


def _values(pid: int) -> set[bytes]:
    """The values in the environment that a process was started with; none when it cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read(MAX_ENVIRON_BYTES).split(b"\0")
    except OSError:  # another user's, or not dumpable: jobs cannot read it either
        return set()
    return {entry.partition(b"=")[2] for entry in entries}
