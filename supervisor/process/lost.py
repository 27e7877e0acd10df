"""Processes that we cannot end: written off, told of once, and reaped should they end after all.

Runs in the parent.  They are our children, and nobody waits for them: one that the kernel holds (a disk that does not
answer, a frozen control group) outlives SIGKILL, and one of another user is not ours to kill.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import structlog

from supervisor.linux.syscalls import has_ended

log = structlog.get_logger("family")

UNKILLABLE_POLL_INTERVAL = 1.0
"""Seconds between two looks at whether one has ended; a descriptor for each would be held for as long as it lives."""


class UnkillableProcesses:
    """Those of one family."""

    def __init__(self) -> None:
        self._pids: set[int] = set()
        self._is_looking = False

    def __contains__(self, pid: int) -> bool:
        return pid in self._pids

    def add(self, pid: int, why: str) -> None:
        """Wait for `pid` no longer."""
        if pid not in self._pids:
            log.error("a process that a job left behind cannot be ended, and is let be", pid=pid, reason=why)
            self._pids.add(pid)
            self._look_later()

    def _look_later(self) -> None:
        if self._pids and not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_later(UNKILLABLE_POLL_INTERVAL, self._look)

    def _look(self) -> None:
        self._is_looking = False
        for pid in tuple(self._pids):
            if has_ended(pid):
                reap_at_once(pid)
                self._pids.discard(pid)
                log.info("a process that could not be ended has ended", pid=pid)
        self._look_later()


def reap_at_once(pid: int) -> bool:
    """Reap our child `pid` if it has ended; whether there was anything to reap."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False
