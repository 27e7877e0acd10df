"""System calls that Python lacks, through ctypes or /proc, each with its man page.  Used in every process; no state.

Tested through their users, such as tests/process/test_reaper.py.
"""

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
"""Seconds since 1970: a time in the 23rd century."""
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
SECCOMP_MODE_FILTER = 2
_CPUCLOCK_SCHED = 2

_libc = ctypes.CDLL(None, use_errno=True)
# Created at import, so that children share it.  PyDLL keeps the GIL: no other Python thread runs during the call.
_set_mask = ctypes.PyDLL(None).pthread_sigmask
_SignalSet = ctypes.c_uint64 * 16
"""A sigset_t of glibc."""


boottime: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds since boot, including suspended time (clock_gettime(2), CLOCK_BOOTTIME): the clock of leases."""


def watch_clock() -> int:
    """Return a descriptor that becomes readable when the wall clock jumps: after a suspend, or when it is set.

    The descriptor is a timer in the far future, which a jump cancels (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
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
    """Return the CPU time of all threads of a process (clock_getcpuclockid(3)); None if it has exited."""
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return None


def die_with_parent(*, armed: bool = True) -> None:
    """Let the kernel SIGKILL this process when the parent thread ends (PR_SET_PDEATHSIG(2const))."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL if armed else 0)


def set_dumpable(dumpable: bool) -> None:  # noqa: FBT001 - it is the kernel's own flag
    """Allow or deny processes of this user to read this one's memory and /proc files (PR_SET_DUMPABLE(2const))."""
    prctl(PR_SET_DUMPABLE, int(dumpable))


def weigh_session(niceness: int, pid: int) -> None:
    """Set the niceness of the session of `pid` against other sessions (sched(7), "The autogroup feature").

    Raise `BlockingIOError` if the kernel accepts no change yet, `FileNotFoundError` if it has no autogroups.
    The write has no effect if the kernel groups processes otherwise, as with CPU accounting of systemd.
    """
    descriptor = os.open(f"/proc/{pid}/autogroup", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(niceness).encode())  # not a file object, whose `write` returns None for EAGAIN
    finally:
        os.close(descriptor)


def become_subreaper() -> None:
    """Become the parent of descendants that lose their parent (PR_SET_CHILD_SUBREAPER(2const))."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def forbid_new_privileges() -> None:
    """Deny new privileges to this process and its descendants, even by `sudo` (PR_SET_NO_NEW_PRIVS(2const))."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def are_new_privileges_forbidden() -> bool:
    """True if new privileges are already denied (PR_GET_NO_NEW_PRIVS(2const))."""
    return prctl(PR_GET_NO_NEW_PRIVS, 0) == 1


def children_of(pid: int) -> list[int]:
    """Return the pids of the children of `pid`, including zombies (proc_pid_task_tid_children(5)); [] if it has exited.

    A child that is forked during the call can be missed: callers repeat the call until there are no children.
    """
    children: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_bytes().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return children


def enter_cgroup(folder: Path) -> None:
    """Move all threads of this process into a control group; forked processes start there (cgroups(7))."""
    with (folder / "cgroup.procs").open("wb", buffering=0) as members:
        members.write(b"0")


def kill_group(leader: int) -> None:
    """Send SIGKILL to the process group of an unreaped `leader`; ignore a group without processes."""
    # PermissionError: all remaining processes of the group run as another user.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def kill_child(pid: int) -> bool:
    """Send SIGKILL to our child `pid`; return False if it is alive and may not be signalled."""
    try:
        os.kill(pid, signal.SIGKILL)  # the pid cannot be reused: only this process can reap it
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs as another user, for example through `sudo`
        return has_ended(pid)
    return True


def has_ended(pid: int) -> bool:
    """True if our child `pid` is a zombie or was reaped (waitid(2))."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def mount_of(descriptor: int) -> int:
    """Return the id of the mount through which a file or folder was opened (proc_pid_fdinfo(5), `mnt_id`, Linux 3.15).

    Device numbers do not identify bind mounts: they are those of the source (stat(2)).  STATX_MNT_ID needs Linux 5.8.
    """
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_bytes().splitlines()
    return int(next(line for line in lines if line.startswith(b"mnt_id:")).split()[1])


def bytes_waiting(descriptor: int) -> int:
    """Return the number of bytes that can be read from a pipe or stream socket now (FIONREAD(2const))."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


def bytes_unread(descriptor: int) -> int:
    """Return the number of bytes, sent on a unix socket, that the peer has not read yet (TIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


_DESCRIPTOR = array.array("i").itemsize
MAX_DESCRIPTORS = 4
"""Descriptors that can be received with one message."""
_ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_DESCRIPTORS * _DESCRIPTOR)
# Plain integers: arithmetic with the enums takes as long as the call.
_TRUNCATED = int(socket.MSG_CTRUNC)
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)


def receive(end: socket.socket, size: int) -> tuple[bytes, list[int], bool]:
    """Receive up to `size` bytes and descriptors, close-on-exec (unix(7), SCM_RIGHTS).

    The third value is true if descriptors were lost because there were more than `MAX_DESCRIPTORS`.

    `socket.recv_fds` ignores MSG_CMSG_CLOEXEC, so every started program would inherit the descriptors.
    """
    data, ancillary, flags, _ = end.recvmsg(size, _ANCILLARY_BYTES, _CLOSE_ON_EXEC)
    descriptors = _descriptors_in(ancillary) if ancillary else []
    return data, descriptors, flags & _TRUNCATED != 0


def _descriptors_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % _DESCRIPTOR])
    return list(descriptors)


def remove_system_v_segment(shmid: int) -> None:
    """Remove a System V segment; the kernel frees it when no process has it attached (shmctl(2), IPC_RMID)."""
    if _libc.shmctl(shmid, 0, None) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"shmctl({shmid}): {os.strerror(error)}")


def system_call(number: int, *arguments: object) -> int:
    """Return the result of syscall(2); raise `OSError` if it fails."""
    result = int(_libc.syscall(ctypes.c_long(number), *map(_wide, arguments)))
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"system call {number}: {os.strerror(error)}")
    return result


def _wide(argument: object) -> object:
    # Each argument of syscall(2) is a 64-bit register; ctypes passes an int as 32 bits.
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def prctl(option: int, value: int, more: int = 0) -> int:
    """Return the result of prctl(2); raise `OSError` if it fails."""
    result = int(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(more), 0, 0))
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}, {value}): {os.strerror(error)}")
    return result


class SignalMask:
    """Blocks one signal and restores the old mask (pthread_sigmask(3)) without running Python code.

    `signal.pthread_sigmask` runs the Python handlers of pending signals before it returns.
    """

    def __init__(self, number: int) -> None:
        blocked, before = _SignalSet(1 << (number - 1)), _SignalSet()
        self.hold: Callable[[], object] = partial(_set_mask, int(signal.SIG_BLOCK), blocked, before)
        self.restore: Callable[[], object] = partial(_set_mask, int(signal.SIG_SETMASK), before, None)
