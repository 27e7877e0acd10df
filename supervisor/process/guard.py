"""What a zygote does when its supervisor died without a word: kill all that its jobs left behind.

The children themselves are killed by the kernel (PR_SET_PDEATHSIG); but what their handlers had started, daemons
included, is nobody's child any more.  It still carries the supervisor's mark in its environment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from supervisor.process.environment import INSTANCE

LONGEST = 10.0
"""Seconds; a process that the kernel cannot kill (uninterruptible sleep) must not keep us for ever."""
ROUNDS_AT_REST = 3
"""So many looks in a row must find nothing: a process that is just being forked is seen by the next one."""


def sweep() -> None:
    """Kill every process that carries our supervisor's mark, but ourselves, until none is left."""
    mark = f"{INSTANCE}={os.environ[INSTANCE]}".encode()
    at_rest = 0
    give_up_at = time.monotonic() + LONGEST
    while at_rest < ROUNDS_AT_REST and time.monotonic() < give_up_at:
        at_rest = 0 if _kill_marked(mark) else at_rest + 1
        time.sleep(0.01)


def _kill_marked(mark: bytes) -> bool:
    found = False
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            found |= _kill_if_marked(int(entry.name), mark)
    return found


def _kill_if_marked(pid: int, mark: bytes) -> bool:
    with contextlib.suppress(OSError):  # gone, or not ours to look at
        pidfd = os.pidfd_open(pid)
        try:
            # Looked at while the pidfd is held: the process that is killed is the one that was seen.
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False
