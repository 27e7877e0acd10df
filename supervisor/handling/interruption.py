"""How a stop request (SIGTERM) becomes `Cancelled` where the handler runs.  In the main thread of a child only.

It owns whether a job can be interrupted right now and whether that was asked for.  It installs no signal handler
(`child_main` does) and never interrupts twice: the first time starts the handler's cleanup, a second would break it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    # Few handlers are coroutines; the children of all others need not carry asyncio.
    import asyncio


class Cancelled(BaseException):
    """The job shall stop: the server, a timeout, a limit or a shutdown asked for it.

    Raised in the middle of the handler, so that its `finally` and `with` blocks run.  A `BaseException`, as
    `KeyboardInterrupt` and `asyncio.CancelledError` are: the `except Exception` around one page of a document, meant
    for broken pages, must not take it for one and go on.
    """


class _Coroutine(NamedTuple):
    """The handler's task, when the handler is a coroutine function."""

    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[Any]


class Interruption:
    """Turns the first stop request during a job into one `Cancelled`.

    `arm`, `disarm`, `attach` and `request` are called in the main thread, where Python runs signal handlers; the
    caller that disarms must be ready for a `Cancelled` that arrives just before:

        try:
            try:
                interruption.arm()
                call_the_handler()
            finally:
                interruption.disarm()
        except Cancelled:
            ...
    """

    def __init__(self) -> None:
        self.requested = False
        """Whether this job was asked to stop; stays readable after `disarm`."""
        self._armed = False
        self._delivered = False
        self._depth = 0
        self._coroutine: _Coroutine | None = None

    def arm(self) -> None:
        """A job begins: from here on a request interrupts it."""
        self.disarm()  # the last job's `disarm` may itself have been interrupted
        self.requested = False
        self._delivered = False
        self._armed = True

    def disarm(self) -> None:
        """The job is over: once this returns nothing is raised any more, not even what was remembered."""
        self._armed = False
        self._coroutine = None

    def attach(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """The handler is this task: while it waits, a request cancels the task instead of breaking the loop's code."""
        self._coroutine = _Coroutine(loop, task)

    @property
    def waits_in(self) -> asyncio.AbstractEventLoop | None:
        """The loop of the handler's task, as long as that waits; None when there is none, or when it runs."""
        if self._coroutine is None or self._is_running(self._coroutine):
            return None
        return self._coroutine.loop

    def request(self) -> None:
        """Ask the running job to stop; without one, do nothing.  Called by the signal handler.

        Raises `Cancelled`, unless that is deferred or the handler's task is to be cancelled by its loop.
        """
        if not self._armed or self.requested:
            return
        self.requested = True
        if self._depth == 0:
            self._deliver()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let nothing be raised inside the block; a request that came meanwhile is raised at the outermost exit.

        Around whatever must not be cut in the middle, as a frame on the pipe.  In other threads it does nothing, for
        nothing is ever raised there.
        """
        if threading.get_ident() != threading.main_thread().ident:
            yield
            return
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0 and self.requested and self._armed:
                self._deliver()

    def _deliver(self) -> None:
        if self._delivered:
            return
        self._delivered = True
        if self._coroutine is None or self._is_running(self._coroutine):
            raise Cancelled("the job was asked to stop")
        self._coroutine.loop.call_soon_threadsafe(self._cancel, self._coroutine.task)

    def _is_running(self, coroutine: _Coroutine) -> bool:
        """Whether an exception raised here ends up in the task: in its own step, or after its end."""
        import asyncio  # loaded already, or there would be no task; see the top

        return coroutine.task.done() or asyncio.current_task(coroutine.loop) is coroutine.task

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        # The loop comes to it later, perhaps after the job's end.
        if self._armed:
            task.cancel()
