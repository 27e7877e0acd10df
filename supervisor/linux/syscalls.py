"""The few system calls Python lacks, by ctypes or /proc, each with its man page.  Used in every process; no state."""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
TFD_TIMER_ABSTIME = 1
TFD_TIMER_CANCEL_ON_SET = 2
FAR_FUTURE = 2**33
"""Seconds since 1970; some time in the 23rd century."""
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
SECCOMP_MODE_FILTER = 2
_CPUCLOCK_SCHED = 2

_libc = ctypes.CDLL(None, use_errno=True)
# Made here, so that children share them.  It keeps the GIL: no other thread of Python comes between.
_set_mask = ctypes.PyDLL(None).pthread_sigmask
_SignalSet = ctypes.c_uint64 * 16
"""A sigset_t of glibc."""


boottime: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds since boot, suspended time included (clock_gettime(2), CLOCK_BOOTTIME): what leases are counted in."""


def watch_clock() -> int:
    """A descriptor that becomes readable when the wall clock jumps: at the end of a suspend, or because it was set.

    It is a timer that never comes, and that such a jump cancels (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
    """
    descriptor: int = _libc.timerfd_create(time.CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    never = struct.pack("qqqq", 0, 0, FAR_FUTURE, 0)
    if _libc.timerfd_settime(descriptor, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, never, None) != 0:
        os.close(descriptor)
        raise OSError(ctypes.get_errno(), "timerfd_settime")
    return descriptor


def cpu_seconds(pid: int) -> float | None:
    """CPU time that a process has used, all its threads (clock_getcpuclockid(3)); None when it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return None


def die_with_parent(*, armed: bool = True) -> None:
    """Have the kernel SIGKILL this process when the thread that is its parent ends (PR_SET_PDEATHSIG(2const))."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL if armed else 0)


def set_dumpable(dumpable: bool) -> None:  # noqa: FBT001 - it is the kernel's own flag
    """Whether other processes of this user may read this one's memory and /proc files (PR_SET_DUMPABLE(2const))."""
    prctl(PR_SET_DUMPABLE, int(dumpable))


def weigh_session(niceness: int, pid: int) -> None:
    """Weigh the session of `pid` by `niceness` against others (sched(7), "The autogroup feature").

    Raise `BlockingIOError` when the kernel accepts no change yet, `FileNotFoundError` where it has no such groups.
    The write has no effect where the kernel groups by other things, as below systemd's CPU accounting.
    """
    descriptor = os.open(f"/proc/{pid}/autogroup", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(niceness).encode())  # not a file object, whose `write` returns None for EAGAIN
    finally:
        os.close(descriptor)


def become_subreaper() -> None:
    """Become the parent of descendants that lost theirs (PR_SET_CHILD_SUBREAPER(2const))."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def forbid_new_privileges() -> None:
    """From now on no program gives us, or what we start, more rights: not sudo either (PR_SET_NO_NEW_PRIVS(2const))."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def are_new_privileges_forbidden() -> bool:
    """Whether somebody has done so before (PR_GET_NO_NEW_PRIVS(2const))."""
    return prctl(PR_GET_NO_NEW_PRIVS, 0) == 1


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


def enter_cgroup(folder: Path) -> None:
    """Move this process, all of its threads, into a control group; what it forks is born there (cgroups(7))."""
    with (folder / "cgroup.procs").open("wb", buffering=0) as members:
        members.write(b"0")


def kill_group(leader: int) -> None:
    """SIGKILL to the process group of an un-reaped `leader`; a group that is gone already is fine."""
    # PermissionError: all that is left of the group has changed its user.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def kill_child(pid: int) -> bool:
    """SIGKILL to our child `pid`; False when it lives and is not ours to kill."""
    try:
        os.kill(pid, signal.SIGKILL)  # no race on the pid: nobody but us can reap it
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs as another user: left behind by a `sudo`, say
        return has_ended(pid)
    return True


def has_ended(pid: int) -> bool:
    """Whether our child `pid` is a zombie, or is not our child any more (waitid(2))."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def mount_of(descriptor: int) -> int:
    """The id of the mount that an open file or folder was reached by (proc_pid_fdinfo(5), `mnt_id`, Linux 3.15).

    A bind mount has the device number of its source (stat(2)), so that does not show it.  STATX_MNT_ID needs Linux 5.8.
    """
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_bytes().splitlines()
    return int(next(line for line in lines if line.startswith(b"mnt_id:")).split()[1])


def bytes_waiting(descriptor: int) -> int:
    """How many bytes can be read from a pipe or stream socket now (FIONREAD(2const))."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


def bytes_unread(descriptor: int) -> int:
    """How much of what was sent by a unix socket its peer has not read yet; 0 when that is all of it (TIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


_DESCRIPTOR = array.array("i").itemsize
MAX_DESCRIPTORS = 4
"""How many descriptors are received at once."""
_ROOM = socket.CMSG_SPACE(MAX_DESCRIPTORS * _DESCRIPTOR)
# As plain numbers: arithmetic with the enums costs as much as the call.
_TRUNCATED = int(socket.MSG_CTRUNC)
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)


def receive(end: socket.socket, size: int) -> tuple[bytes, list[int], bool]:
    """Up to `size` bytes, and the descriptors that came along, close-on-exec (unix(7), SCM_RIGHTS).

    And whether any were lost because there was no room for them.

    `socket.recv_fds` does not pass its flags on, so what it receives is inherited by every program that is started.
    """
    data, ancillary, flags, _ = end.recvmsg(size, _ROOM, _CLOSE_ON_EXEC)
    descriptors = _descriptors_in(ancillary) if ancillary else []
    return data, descriptors, flags & _TRUNCATED != 0


def _descriptors_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % _DESCRIPTOR])
    return list(descriptors)


def remove_system_v_segment(shmid: int) -> None:
    """Remove a System V segment once no process has it attached (shmctl(2), IPC_RMID)."""
    if _libc.shmctl(shmid, 0, None) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"shmctl({shmid}): {os.strerror(error)}")


def system_call(number: int, *arguments: object) -> int:
    """Return what syscall(2) returns; raise `OSError` when it fails."""
    result = int(_libc.syscall(ctypes.c_long(number), *map(_wide, arguments)))
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"system call {number}: {os.strerror(error)}")
    return result


def _wide(argument: object) -> object:
    # A variable argument of syscall(2) is a whole register; ctypes would pass an int as half of one.
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def prctl(option: int, value: int, more: int = 0) -> int:
    """Return what prctl(2) returns; raise `OSError` when it fails."""
    result = int(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(more), 0, 0))
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}, {value}): {os.strerror(error)}")
    return result


class SignalMask:
    """Blocks one signal and restores what was before (pthread_sigmask(3)), without a step of Python in between.

    Python's own call runs the handlers of signals that have come, wherever that is.
    """

    def __init__(self, number: int) -> None:
        blocked, before = _SignalSet(1 << (number - 1)), _SignalSet()
        self.hold: Callable[[], object] = partial(_set_mask, int(signal.SIG_BLOCK), blocked, before)
        self.restore: Callable[[], object] = partial(_set_mask, int(signal.SIG_SETMASK), before, None)
