"""Tasks that run beside a block and end with it, and threads that are waited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from supervisor.concurrency.timers import TimerId, TimerQueue

Helper = Callable[[], Coroutine[Any, Any, None]]
Returned = TypeVar("Returned")

MAX_TIMERS = 8
"""Alarms of a block before those that have rung are forgotten; a job has two or three."""


class HelperTasks(asyncio.TaskGroup):
    """A task group for helpers: the end of its block cancels them, an error in one of them ends the block.

    A helper may be started now or after a while.  Most jobs are over before any of their helpers is needed, and an
    alarm costs a tenth of a task.
    """

    is_over = False
    """Whether the block has ended; nothing starts any more."""
    _is_used = False

    def __init__(self, alarms: TimerQueue | None = None) -> None:
        """`alarms` are those of somebody with many such blocks."""
        super().__init__()
        self._helpers: set[asyncio.Task[None]] = set()
        self._alarms = alarms or TimerQueue()
        self._set: list[TimerId] = []

    def create_task(self, *arguments: Any, **more: Any) -> asyncio.Task[Any]:
        """As of any task group: a task that is waited for."""
        self._is_used = True
        return super().create_task(*arguments, **more)

    def start(self, helper: Helper) -> asyncio.Task[None] | None:
        """Run `helper` from now on; None when the block is over, or ending because of an error in another helper."""
        if self.is_over:
            return None
        coroutine = helper()
        try:
            task = self.create_task(coroutine)
        except RuntimeError:
            coroutine.close()
            return None
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)
        return task

    def start_after(self, delay: float, helper: Helper) -> None:
        """Run `helper` in `delay` seconds, unless the block is over by then."""
        if len(self._set) >= MAX_TIMERS:  # a long block, which sets one after the other
            self._set = [alarm for alarm in self._set if self._alarms.is_set(alarm)]
        self._set.append(self._alarms.after(delay, partial(self.start, helper)))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_over = True
        for alarm in self._set:
            self._alarms.cancel(alarm)
        if not self._is_used:
            return  # as that of most jobs: there is nobody to wait for
        for task in tuple(self._helpers):
            task.cancel()
        await super().__aexit__(kind, error, trace)


def prestarted_executor(count: int) -> ThreadPoolExecutor:
    """Threads for the event loop, all started already: when one is needed the machine may have no room for it."""
    executor = ThreadPoolExecutor(count)
    everybody = threading.Barrier(count)  # each takes one task, so that there is one for each
    try:
        for _ in range(count):
            executor.submit(everybody.wait)
    except RuntimeError:  # no room even now: those that there are will do
        everybody.abort()
    return executor


async def to_thread_uncancelled(
    function: Callable[..., Returned], *arguments: object, discard: Callable[[Returned], None] | None = None
) -> Returned:
    """Call `function` in a thread.  When this is cancelled it waits for the thread all the same, and then ends.

    So whatever the thread works with, a descriptor for one, may be closed right after; and what it returns when nobody
    waits for it any more goes to `discard`.
    """
    running = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    cancelled = await _outlast(running)
    if cancelled is None:
        return running.result()
    if running.exception() is None and discard is not None:
        discard(running.result())
    raise cancelled


async def shielded(steps: Coroutine[Any, Any, None]) -> None:
    """Take all of `steps`.  When this is cancelled it takes them all the same, and then ends."""
    running = asyncio.ensure_future(steps)
    cancelled = await _outlast(running)
    running.result()
    if cancelled is not None:
        raise cancelled


async def _outlast(running: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until `running` is done; return the last of the cancellations that came meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled
