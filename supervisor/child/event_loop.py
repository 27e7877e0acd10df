"""Runs the coroutine of an `async def` handler.  A child imports this module when it runs its first such handler.

`asyncio.run` is not used: it waits without a limit for every thread and task of the loop, although the result is
complete.  Tested by tests/process/test_child.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

END_TIMEOUT = 5.0
"""Seconds for tasks and asynchronous generators to end after the handler has returned.  Threads get no time: the child
is replaced if one is still running."""


def run(main: Coroutine[Any, Any, Any], end_timeout: float = END_TIMEOUT) -> tuple[Any, int]:
    """Return the result of `main`, and the number of tasks that did not end within `end_timeout` after it."""
    loop = asyncio.new_event_loop()
    left = 0
    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(main)
    except BaseException:
        # There is no result to lose: cleanup in other tasks may take all the time that the job has left.
        _end(loop, None)
        raise
    else:
        left = _end(loop, end_timeout)
    finally:
        asyncio.set_event_loop(None)
        if left == 0:
            loop.close()
    return result, left


def _end(loop: asyncio.AbstractEventLoop, timeout: float | None) -> int:
    """Cancel the remaining tasks and wait for them; return how many still run.  Executor threads are not awaited."""
    # An exception of a callback or task, such as SystemExit, must not replace the outcome of the handler.
    with contextlib.suppress(BaseException):
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        ending = loop.create_task(_ended(loop, tasks))
        loop.run_until_complete(asyncio.wait([ending], timeout=timeout))
    return len(asyncio.all_tasks(loop))


async def _ended(loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
    await loop.shutdown_asyncgens()
