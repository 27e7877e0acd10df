"""Tasks that run beside a block and end with it, and threads that are waited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Helper = Callable[[], Coroutine[Any, Any, None]]
Returned = TypeVar("Returned")


class Alongside(asyncio.TaskGroup):
    """A task group for helpers: the end of its block cancels them, an error in one of them ends the block.

    A helper may be started now or after a while.  Most jobs are over before any of their helpers is needed, and a
    timer costs a tenth of a task.
    """

    def __init__(self) -> None:
        super().__init__()
        self._helpers: list[asyncio.Task[None]] = []
        self._timers: list[asyncio.TimerHandle] = []

    def start(self, helper: Helper) -> asyncio.Task[None] | None:
        """Run `helper` from now on; None when the block is ending already, because of an error in another helper."""
        coroutine = helper()
        try:
            task = self.create_task(coroutine)
        except RuntimeError:
            coroutine.close()
            return None
        self._helpers.append(task)
        return task

    def start_after(self, delay: float, helper: Helper) -> None:
        """Run `helper` in `delay` seconds, unless the block is over by then."""
        self._timers.append(asyncio.get_running_loop().call_later(delay, self.start, helper))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for timer in self._timers:
            timer.cancel()
        if not self._helpers:
            return  # most jobs': nobody to wait for
        for task in self._helpers:
            task.cancel()
        await super().__aexit__(kind, error, trace)


class Interruptible:
    """A block, of one task at a time, that somebody else may end: `with`.

    As `asyncio.timeout(None)` and its `reschedule`, for a block that is entered with every job: a tenth of the cost.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None  # while it is inside
        self._timer: asyncio.TimerHandle | None = None
        self._is_cut = False

    def end_in(self, seconds: float) -> None:
        """End the block in so long, if anybody is inside and it is not over by then."""
        if self._task is not None and not self._is_cut:
            self._forget_timer()
            self._timer = self._task.get_loop().call_later(seconds, self._cut, self._task)

    def __enter__(self) -> None:
        self._task = asyncio.current_task()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Swallow the cancellation that has ended the block, unless the task is to end as a whole."""
        task, self._task = self._task, None
        self._forget_timer()
        if not self._is_cut:
            return False
        self._is_cut = False
        assert task is not None
        return task.uncancel() == 0 and kind is asyncio.CancelledError

    def _cut(self, task: asyncio.Task[Any]) -> None:
        self._is_cut = True
        task.cancel()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def ready_threads(count: int) -> ThreadPoolExecutor:
    """Threads for the event loop, all started already: when one is needed the machine may have no room for it."""
    executor = ThreadPoolExecutor(count)
    everybody = threading.Barrier(count)  # each takes one task, so that there is one for each
    try:
        for _ in range(count):
            executor.submit(everybody.wait)
    except RuntimeError:  # no room even now: those that there are will do
        everybody.abort()
    return executor


async def to_the_end(
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


async def whole(steps: Coroutine[Any, Any, None]) -> None:
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
