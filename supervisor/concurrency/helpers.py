"""Helper tasks that end with a block, and calls that finish before a cancellation takes effect."""

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
"""Timers of a block before expired ones are removed; a job has two or three."""


class HelperTasks(asyncio.TaskGroup):
    """A task group for helpers: the end of the block cancels them, and an error in a helper ends the block.

    A helper starts now or after a delay.  Most jobs end before their helpers start, and a timer costs a tenth of a
    task.
    """

    is_over = False
    """True after the block has ended; no helper starts any more."""
    _is_used = False

    def __init__(self, timers: TimerQueue | None = None) -> None:
        """`timers` is a queue that many blocks share; None creates one."""
        super().__init__()
        self._helpers: set[asyncio.Task[None]] = set()
        self._timers = timers or TimerQueue()
        self._timer_ids: list[TimerId] = []

    def create_task(self, *arguments: Any, **more: Any) -> asyncio.Task[Any]:
        """Create a task that the block waits for, as in any task group."""
        self._is_used = True
        return super().create_task(*arguments, **more)

    def start(self, helper: Helper) -> asyncio.Task[None] | None:
        """Start `helper` now; return None when the block is over, or ends because of an error in another helper."""
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
        """Start `helper` in `delay` seconds, unless the block is over by then."""
        if len(self._timer_ids) >= MAX_TIMERS:  # a long block that sets many timers
            self._timer_ids = [timer for timer in self._timer_ids if self._timers.is_set(timer)]
        self._timer_ids.append(self._timers.after(delay, partial(self.start, helper)))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_over = True
        for timer in self._timer_ids:
            self._timers.cancel(timer)
        if not self._is_used:
            return  # as in most jobs: there is no task to wait for
        for task in tuple(self._helpers):
            task.cancel()
        await super().__aexit__(kind, error, trace)


def prestarted_executor(count: int) -> ThreadPoolExecutor:
    """Return an executor whose threads are already started, because a later start may fail for lack of resources."""
    executor = ThreadPoolExecutor(count)
    barrier = threading.Barrier(count)  # each thread blocks in one task, so the executor starts all of them
    try:
        for _ in range(count):
            executor.submit(barrier.wait)
    except RuntimeError:  # no further thread can start; use those that did
        barrier.abort()
    return executor


async def to_thread_uncancelled(
    function: Callable[..., Returned], *arguments: object, discard: Callable[[Returned], None] | None = None
) -> Returned:
    """Call `function` in a thread.  A cancellation takes effect only after the thread has finished.

    The caller may therefore close what the thread uses, such as a descriptor.  After a cancellation, the thread's
    return value goes to `discard`.
    """
    running = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    cancelled = await _outlast(running)
    if cancelled is None:
        return running.result()
    if running.exception() is None and discard is not None:
        discard(running.result())
    raise cancelled


async def shielded(steps: Coroutine[Any, Any, None]) -> None:
    """Await all of `steps`.  A cancellation takes effect only after their end."""
    running = asyncio.ensure_future(steps)
    cancelled = await _outlast(running)
    running.result()
    if cancelled is not None:
        raise cancelled


async def _outlast(running: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until `running` is done; return the last cancellation that arrived meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled
