"""The processes that a child's handler started and left behind.  Runs in the child, which is their subreaper.

A daemon loses its parent and becomes a child of its subreaper (PR_SET_CHILD_SUBREAPER(2const)), so that no process
outlives the job that started it.  Tested by tests/process/test_child.py and tests/process/test_reaper.py.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Any, NoReturn

from supervisor.linux.syscalls import children_of, has_ended, kill_child

KILL_TIMEOUT = 5.0
"""Seconds to wait for a process to end after SIGKILL.  The parent tries again later, and then gives up."""
MIN_POLL_INTERVAL, MAX_POLL_INTERVAL = 0.0002, 0.02
"""Seconds between two checks of whether a process has ended."""
TRACKER_STOP_TIMEOUT = 2.0
"""Seconds to wait until the resource tracker has unlinked what processes left behind."""
TRACKER_POLL_INTERVAL = 0.001
"""Seconds between two checks of whether the resource tracker has ended."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The number of processes that were alive and were killed, and of those that could not be killed."""

    killed: int
    survived: int

    def __add__(self, later: Ended) -> Ended:
        """Add a later round; processes that a later round could not kill are those of the earlier round."""
        return Ended(self.killed + later.killed, later.survived)


def end_all(*, but: int | None = None) -> Ended:
    """Kill and reap every descendant that can be killed, except the child `but`."""
    killed = 0
    survived: set[int] = set()
    kept = set() if but is None else {but}
    deadline = time.monotonic() + KILL_TIMEOUT
    while exist():
        # The children of a killed process become ours: repeat until there are none.
        pids = set(children_of(os.getpid())) - survived - kept
        if not pids and (survived or kept):
            break
        alive = {pid for pid in pids if not has_ended(pid)}
        refused = {pid for pid in pids if not kill_child(pid)}
        for pid in pids:
            if pid not in refused and _reap(pid, deadline):
                killed += pid in alive
            else:
                survived.add(pid)
    return Ended(killed, len(survived))


def exist() -> bool:
    """True if there is a descendant, zombies included.  Each descendant is a child of ours or below one."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _reap(pid: int, deadline: float) -> bool:
    """Wait until our child `pid` has ended, and reap it; return False at the deadline."""
    pause = MIN_POLL_INTERVAL
    while not has_ended(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, MAX_POLL_INTERVAL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return True


def exit_forked_process(error: BaseException | None) -> NoReturn:
    """End a process that the handler forked, when it leaves the handler with `error` or without one.

    The process ends as a Python program does.  If it went on, its messages on the shared pipe would be mistaken for
    messages of the child.
    """
    status = 0
    with contextlib.suppress(Exception):  # the handler may have replaced the streams by any object
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
            if status and not isinstance(error.code, int):
                sys.stderr.write(f"{error.code}\n")
        elif error is not None:
            status = 1
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status & 0xFF)


def tracker_pid() -> int | None:
    """Return the pid of our own `multiprocessing` resource tracker; None if there is none, or only the zygote's."""
    number = getattr(_tracker(), "_pid", None)
    return number if isinstance(number, int) and number in children_of(os.getpid()) else None


def shut_down_tracker(pid: int) -> None:
    """Close the pipe of our own tracker and wait until it ends; `multiprocessing` starts another one on demand."""
    tracker = _tracker()
    with contextlib.suppress(OSError, TypeError):
        os.close(tracker._fd)  # noqa: SLF001 - see `_tracker`
    tracker._fd = tracker._pid = None  # noqa: SLF001
    deadline = time.monotonic() + TRACKER_STOP_TIMEOUT
    while not has_ended(pid) and time.monotonic() < deadline:
        time.sleep(TRACKER_POLL_INTERVAL)
    if has_ended(pid):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _tracker() -> Any:
    # There is no public access.  In a version of Python with other names the tracker is killed like other descendants.
    return getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
