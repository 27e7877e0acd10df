"""Reaps inherited processes that have ended: otherwise each keeps its pid until the parent exits.  Runs in the parent.

As PID 1 of a container, or as a subreaper, the parent inherits orphans that no job started: the helper of a health
probe, a program started by `docker exec`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from supervisor.process.reaper import Reaper

CHECK_INTERVAL = 1.0
"""Seconds between two checks, one system call each; uvloop does not pass on SIGCHLD."""


class OrphanWatch:
    """Checks periodically for inherited children that have ended."""

    def __init__(self, reaper: Reaper) -> None:
        self._reaper = reaper

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            if _has_a_child_ended():
                with contextlib.suppress(OSError):  # out of descriptors; the next check may have one
                    self._reaper.reap_ended()


def _has_a_child_ended() -> bool:
    """True if there is a zombie, which may be a registered process that is just being reaped."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False
