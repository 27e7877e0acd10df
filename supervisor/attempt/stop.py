"""Stop of a handler: the reason, SIGTERM, the grace, SIGKILL.  Runs in the parent."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from supervisor.attempt.no_child import NoChild
from supervisor.attempt.outcome import StopReason
from supervisor.process.child import Child

SIGTERM_RESEND_DELAYS = (0.02, 0.1)
"""Seconds after which SIGTERM is sent again.  One is not enough: when it arrives just before the handler begins to wait
in a system call it would be noticed only when the call is over.
"""
STACK_TIMEOUT = 0.01
"""Seconds within which a child must write its stack; it takes one millisecond."""


class StopRequest(msgspec.Struct, eq=False):
    """The reason to stop one job, and the time at which its handler was asked to stop."""

    reason: StopReason | None = None
    started_at: float | None = None
    """Time at which the handler was asked to stop; None before."""

    @property
    def is_under_way(self) -> bool:
        """True if the handler was asked to stop."""
        return self.started_at is not None

    @property
    def is_by_cancel(self) -> bool:
        return self.reason is not None and self.reason.is_cancel

    def accept(self, why: StopReason, *, has_ended: bool) -> bool:
        """Have it stopped for this reason, unless there is a better one: return whether it counts.

        A cancel counts before any other, also when the handler has ended.  What else comes then comes too late: how
        the handler ended by itself is not to be told as if it had been stopped.
        """
        counts = not self.is_by_cancel if why.is_cancel else self.reason is None and not has_ended
        if counts:
            self.reason = why
        return counts


async def terminate_then_kill(child: Child | NoChild, grace: float, log: Any) -> None:
    """Have the handler stop by itself; kill its child when it has not done so within `grace` seconds.

    Whoever learns that it has stopped cancels this.
    """
    kill_at = asyncio.get_running_loop().time() + grace
    child.terminate()
    for pause in SIGTERM_RESEND_DELAYS:
        await asyncio.sleep(min(pause, grace))
        await child.capture_stop_stack(STACK_TIMEOUT)
        child.resend_sigterm()
    await asyncio.sleep(kill_at - asyncio.get_running_loop().time())
    if child.is_busy:
        log.warning("the handler did not stop within its grace: killed")
        await child.write_stack(STACK_TIMEOUT)
        child.kill_now()
