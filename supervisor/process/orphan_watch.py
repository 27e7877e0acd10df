"""Collects processes that were given to the parent and have ended: otherwise each keeps a pid until the program ends.

As PID 1 of a container, or as a subreaper, the parent inherits what others leave behind: a health probe's helper, a
program started by `docker exec`.  Runs in the parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from supervisor.process.reaper import Reaper

CHECK_INTERVAL = 1.0
"""Seconds between two looks, one system call each; uvloop keeps SIGCHLD, which would announce an end, to itself."""


class OrphanWatch:
    """Looks now and then whether an inherited child has ended."""

    def __init__(self, family: Reaper) -> None:
        self._family = family

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            if _has_a_child_ended():
                with contextlib.suppress(OSError):  # no descriptor is left to look with; the next look may have one
                    self._family.reap_ended()


def _has_a_child_ended() -> bool:
    """True if there is a zombie, which may be a member's that is collected at this moment."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False
