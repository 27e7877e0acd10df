"""Why a handler is stopped, and how: SIGTERM, its grace, SIGKILL.  Runs in the parent."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from supervisor.process.child import Child
from supervisor.attempt.outcome import Stop
from supervisor.attempt.no_child import Unborn

NUDGES = (0.02, 0.1)
"""Seconds after which SIGTERM is sent again.  One is not enough: when it arrives just before the handler begins to wait
in a system call it would be noticed only when the call is over.
"""
STACK_TIME = 0.01
"""Seconds that a child gets to write its stack; it takes one millisecond."""


class Stopping(msgspec.Struct, eq=False):
    """Why one job is stopped, and since when its handler is."""

    why: Stop | None = None
    since: float | None = None
    """When its handler was asked to stop; None while it was not."""

    @property
    def is_under_way(self) -> bool:
        """Whether the handler was asked to stop."""
        return self.since is not None

    @property
    def is_by_cancel(self) -> bool:
        return self.why is not None and self.why.is_cancel

    def takes(self, why: Stop, *, has_ended: bool) -> bool:
        """Have it stopped for this reason, unless there is a better one: return whether it counts.

        A cancel counts before any other, also when the handler has ended.  What else comes then comes too late: how
        the handler ended by itself is not to be told as if it had been stopped.
        """
        counts = not self.is_by_cancel if why.is_cancel else self.why is None and not has_ended
        if counts:
            self.why = why
        return counts


async def terminate_then_kill(child: Child | Unborn, grace: float, log: Any) -> None:
    """Have the handler stop by itself; kill its child when it has not done so within `grace` seconds.

    Whoever learns that it has stopped cancels this.
    """
    kill_at = asyncio.get_running_loop().time() + grace
    child.terminate()
    for pause in NUDGES:
        await asyncio.sleep(min(pause, grace))
        await child.settle_stack(STACK_TIME)
        child.nudge()
    await asyncio.sleep(kill_at - asyncio.get_running_loop().time())
    if child.is_busy:
        log.warning("the handler did not stop within its grace: killed")
        await child.write_stack(STACK_TIME)
        child.kill_now()
