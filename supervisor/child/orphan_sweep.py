"""What a zygote does when its supervisor died without a word: kill all that its jobs left behind.

The children themselves are killed by the kernel (PR_SET_PDEATHSIG); but what their handlers had started, daemons
included, is nobody's child any more.  It still wears the supervisor's mark.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from supervisor.linux.process_tag import has_tag, tagged_pids

SWEEP_TIMEOUT = 10.0
"""Seconds; a process that the kernel cannot kill (uninterruptible sleep) must not keep us for ever."""
MAX_IDLE_ROUNDS = 3
"""So many looks in a row must find nothing: a process that is just being forked is seen by the next one."""


def kill_tagged(mark: int) -> None:
    """Kill every process that wears `mark`, but ourselves, until none is left."""
    at_rest = 0
    give_up_at = time.monotonic() + SWEEP_TIMEOUT
    while at_rest < MAX_IDLE_ROUNDS and time.monotonic() < give_up_at:
        others = [pid for pid in tagged_pids(mark) if pid != os.getpid()]
        killed = sum(_kill(pid, mark) for pid in others)
        at_rest = 0 if killed else at_rest + 1
        time.sleep(0.01)


def _kill(pid: int, mark: int) -> bool:
    with contextlib.suppress(OSError):  # gone meanwhile
        pidfd = os.pidfd_open(pid)
        try:
            # Looked at again while the pidfd is held: the process that is killed is the one that was seen.
            if has_tag(pid, mark):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False
