"""A mark that a process hands down to all that it starts, whatever these do to hide.

It survives fork, exec, a new session, a double fork and an emptied environment, because it is a resource limit
(getrlimit(2): inherited by fork, kept by exec): the soft limit on the processor time that a real-time thread may use
without blocking.  With a mark that limit is tens of thousands of years, so it is no limit at all.
"""

from __future__ import annotations

import resource
import secrets
from collections.abc import Iterator
from pathlib import Path

_FIRST = 1 << 60  # microseconds


def new_tag() -> int:
    """A mark like no other on this host."""
    return _FIRST + secrets.randbits(48)


def set_tag(mark: int) -> None:
    """Mark this process, and all that it will start."""
    _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    resource.setrlimit(resource.RLIMIT_RTTIME, (mark, hard))


def tagged_pids(mark: int) -> Iterator[int]:
    """The pids of all processes that wear `mark` now; a process may be gone by the time its pid is used."""
    return (pid for pid in _all_pids() if has_tag(pid, mark))


def has_tag(pid: int, mark: int) -> bool:
    """Whether the process lives and wears the mark (proc_pid_limits(5), proc_pid_stat(5))."""
    try:
        limits = Path(f"/proc/{pid}/limits").read_bytes()
        return str(mark).encode() in limits.split() and not _is_zombie(pid)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def _is_zombie(pid: int) -> bool:
    # The state is the first field behind the name, which may hold anything, parentheses included.
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")


def _all_pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
