"""The last act of a zygote whose supervisor has died: kill all processes that its jobs left behind.

The kernel kills the children (PR_SET_PDEATHSIG), but not the processes that their handlers started.  These have lost
their parent, but still carry the tag of the supervisor (see `process_tag`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from supervisor.linux.process_tag import has_tag, tagged_pids

SWEEP_TIMEOUT = 10.0
"""Seconds for the whole sweep; a process in uninterruptible sleep cannot be killed, and is left."""
MAX_IDLE_ROUNDS = 3
"""Consecutive rounds that must find no process: a fork during one round is found by the next."""


def kill_tagged(tag: int) -> None:
    """Kill every process with `tag`, except this one, until none is left."""
    idle_rounds = 0
    deadline = time.monotonic() + SWEEP_TIMEOUT
    while idle_rounds < MAX_IDLE_ROUNDS and time.monotonic() < deadline:
        others = [pid for pid in tagged_pids(tag) if pid != os.getpid()]
        killed = sum(_kill(pid, tag) for pid in others)
        idle_rounds = 0 if killed else idle_rounds + 1
        time.sleep(0.01)


def _kill(pid: int, tag: int) -> bool:
    with contextlib.suppress(OSError):  # the process has exited
        pidfd = os.pidfd_open(pid)
        try:
            # Checked again while the pidfd is open: the pid may have been reused since it was listed.
            if has_tag(pid, tag):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False
