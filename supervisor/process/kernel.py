"""The few system calls Python lacks, by ctypes or /proc, each with its man page.  Used in every process; no state."""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import sys
import termios
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
_CPUCLOCK_SCHED = 2

_libc = ctypes.CDLL(None, use_errno=True)


def boottime() -> float:
    """Seconds since boot, suspended time included (clock_gettime(2), CLOCK_BOOTTIME): what leases are counted in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def cpu_seconds(pid: int) -> float | None:
    """CPU time that a process has used, all its threads (clock_getcpuclockid(3)); None when it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return None


def die_with_parent(*, armed: bool = True) -> None:
    """Have the kernel SIGKILL this process when the thread that is its parent ends (PR_SET_PDEATHSIG(2const))."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL if armed else 0)


def set_dumpable(dumpable: bool) -> None:  # noqa: FBT001 - it is the kernel's own flag
    """Whether other processes of this user may read this one's memory and /proc files (PR_SET_DUMPABLE(2const))."""
    _prctl(PR_SET_DUMPABLE, int(dumpable))


def become_subreaper() -> None:
    """Become the parent of descendants that lost theirs (PR_SET_CHILD_SUBREAPER(2const))."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def children_of(pid: int) -> list[int]:
    """The pids of the children of `pid`, zombies included (proc_pid_task_tid_children(5)); [] when it is gone.

    A child that forks meanwhile can be missed: callers look again until nothing is left.
    """
    children: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_bytes().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return children


def kill_group(leader: int) -> None:
    """SIGKILL to the process group of an un-reaped `leader`; a group that is gone already is fine."""
    # PermissionError: all that is left of the group has changed its user.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def bytes_waiting(descriptor: int) -> int:
    """How many bytes can be read from a pipe or stream socket now (FIONREAD(2const))."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


def receive(end: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Up to `size` bytes, and the descriptors that came along, up to `most`, close-on-exec (unix(7), SCM_RIGHTS).

    `socket.recv_fds` does not pass its flags on, so what it receives is inherited by every program that is started.
    """
    item = array.array("i").itemsize
    data, ancillary, _, _ = end.recvmsg(size, socket.CMSG_SPACE(most * item), socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % item])
    return data, list(descriptors)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}, {value}): {os.strerror(error)}")
