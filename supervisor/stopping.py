"""How a handler is stopped: SIGTERM, its grace, SIGKILL.  Runs in the parent."""

from __future__ import annotations

import asyncio
from typing import Any

from supervisor.process.child import Child

NUDGES = (0.02, 0.1, 0.0)
"""Seconds after each SIGTERM.  One is not enough: when it arrives just before the handler begins to wait in a system
call, or with the signal for the stack, which restarts the call, it would be noticed only when the call is over.
"""
STACK_TIME = 0.01
"""Seconds that a child gets to write its stack before it is stopped; it takes one millisecond."""


async def terminate_then_kill(child: Child, grace: float, log: Any) -> None:
    """Have the handler stop by itself; kill its child when it has not done so within `grace` seconds.

    Whoever learns that it has stopped cancels this.
    """
    await child.write_stack(STACK_TIME)
    kill_at = asyncio.get_running_loop().time() + grace
    for pause in NUDGES:
        child.terminate()
        await asyncio.sleep(min(pause, grace))
    await asyncio.sleep(kill_at - asyncio.get_running_loop().time())
    if not child.is_idle:
        log.warning("the handler did not stop within its grace: killed")
        await child.write_stack(STACK_TIME)
        child.kill_now()
