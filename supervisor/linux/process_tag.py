"""A tag that all descendants of a process inherit and do not lose when they daemonize.

The tag survives fork, exec, a new session, a double fork and an emptied environment, because it is a resource limit
(getrlimit(2): inherited by fork, kept by exec): RLIMIT_RTTIME, the processor time that a real-time thread may use
without blocking.  A tag is a limit of tens of thousands of years, so it limits no process.
Tested by tests/child/test_orphan_sweep.py.
"""

from __future__ import annotations

import resource
import secrets
from collections.abc import Iterator
from pathlib import Path

_MIN_TAG = 1 << 60  # microseconds


def new_tag() -> int:
    """Return a random tag that no other process on this host has."""
    return _MIN_TAG + secrets.randbits(48)


def set_tag(tag: int) -> None:
    """Set the tag of this process and of its future descendants."""
    _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    resource.setrlimit(resource.RLIMIT_RTTIME, (tag, hard))


def tagged_pids(tag: int) -> Iterator[int]:
    """Yield the pids of all processes with this tag.  A process may exit before its pid is used."""
    return (pid for pid in _all_pids() if has_tag(pid, tag))


def has_tag(pid: int, tag: int) -> bool:
    """True if the process is alive and has the tag (proc_pid_limits(5), proc_pid_stat(5))."""
    try:
        limits = Path(f"/proc/{pid}/limits").read_bytes()
        return str(tag).encode() in limits.split() and not _is_zombie(pid)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def _is_zombie(pid: int) -> bool:
    # The state is the first field after the name, which may contain any character, including parentheses.
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")


def _all_pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
