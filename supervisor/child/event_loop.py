"""Runs the coroutine of an `async def` handler.  In a child; imported only where there is one.

Not `asyncio.run`: that waits for each thread and each task of the loop, however long it takes, before it returns a
result that is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

END_TIMEOUT = 5.0
"""Seconds that tasks and asynchronous generators get to end once the handler has returned.  Threads get none: the
child is replaced when one goes on."""


def run(main: Coroutine[Any, Any, Any], within: float = END_TIMEOUT) -> tuple[Any, int]:
    """Return the result of `main`, and how many tasks did not end within so many seconds after it."""
    loop = asyncio.new_event_loop()
    left = 0
    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(main)
    except BaseException:
        # There is no result to lose: cleanup in other tasks may take what time the job has.
        _end(loop, None)
        raise
    else:
        left = _end(loop, within)
    finally:
        asyncio.set_event_loop(None)
        if left == 0:
            loop.close()
    return result, left


def _end(loop: asyncio.AbstractEventLoop, within: float | None) -> int:
    """Cancel what tasks are left, and wait for them; return how many still run.  The executor's threads are let be."""
    # What a callback or a task raises here, SystemExit for one, is not the handler's outcome.
    with contextlib.suppress(BaseException):
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        generators = loop.create_task(_ended(loop, tasks))
        loop.run_until_complete(asyncio.wait([generators], timeout=within))
    return len(asyncio.all_tasks(loop))


async def _ended(loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
    await loop.shutdown_asyncgens()
