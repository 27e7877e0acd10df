"""How a stop request (SIGTERM) becomes `Cancelled` where the handler runs.  In the main thread of a child only.

It owns whether a job can be interrupted right now, whether that was asked for, and whether the `Cancelled` that was
raised is still on its way.  It installs no signal handler (`child_main` does).

`Cancelled` is raised a second time only when the first one was lost.  Python keeps an exception alive while it
propagates and while an `except`, `finally` or `with` block handles it; so a lost one is one that was freed while the
handler goes on.  Cleanup that runs because of `Cancelled` is never cut.

    freed after sys.unraisablehook   `__del__`, a callback of C code, a hook: Python drops what these raise.  Raised
                                     again at the next step of the frame in which it was dropped
    freed for the first time         an `except` block ended.  Perhaps on purpose, and the handler returns soon: raised
                                     again after `RAISE_AGAIN_AFTER`
    freed for the second time        an `except` in a loop.  Raised again at the next step of the frame in which it was
                                     dropped, which is outside of that `except`
"""

from __future__ import annotations

import signal
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from supervisor.handler_api.watched import Watched, chain_of

if TYPE_CHECKING:
    # Few handlers are coroutines; the children of all others need not carry asyncio.
    import asyncio

RAISE_AGAIN_AFTER = 0.5
"""Seconds that a handler may go on after it has caught `Cancelled`, until `Cancelled` is raised once more."""
_REASON = "the job was asked to stop"


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
    """Turns a stop request during a job into `Cancelled`, and into another one when the first was lost.

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
        self._is_pending = False  # `Cancelled` is to be raised as soon as that is allowed
        self._depth = 0
        self._coroutine: _Coroutine | None = None
        self._expects_throw = False  # by the loop, into the handler's coroutine
        self._was_thrown = False  # what was raised last
        self._raised: weakref.ref[BaseException] | None = None
        self._drops = 0  # of this job
        self._is_unraisable = False  # what Python is about to drop
        self._target: FrameType | None = None  # the frame in which it is raised next
        self._callback: CodeType | None = None  # in which the last one was dropped
        self._over = threading.Event()
        self._hook = _Hook(self._on_unraisable)

    def arm(self) -> None:
        """A job begins: from here on a request interrupts it."""
        self.disarm()  # the last job's `disarm` may itself have been interrupted
        self.requested = self._is_pending = self._expects_throw = self._is_unraisable = False
        self._drops = 0
        self._hook.install()
        self._armed = True

    def disarm(self) -> None:
        """The job is over: once this returns nothing is raised any more, not even what was remembered."""
        self._armed = False
        self._coroutine = None
        self._raised = None
        if self._target is not None:
            self._target = None
            sys.settrace(None)
        self._over.set()
        self._hook.remove()

    def attach(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """The handler is this task: while it waits, a request cancels the task instead of breaking the loop's code."""
        self._coroutine = _Coroutine(loop, task)

    def watched(self, coroutine: Coroutine[Any, Any, Any]) -> Watched:
        """The handler's coroutine, to be awaited in its task: a lost `asyncio.CancelledError` is noticed."""
        return Watched(coroutine, self._on_throw, lambda: self._watch(Cancelled(_REASON)))

    @property
    def waits_in(self) -> asyncio.AbstractEventLoop | None:
        """The loop of the handler's task, as long as that waits; None when there is none, or when it runs."""
        if self._coroutine is None or self._is_running(self._coroutine):
            return None
        return self._coroutine.loop

    def request(self) -> None:
        """Ask the running job to stop; without one, do nothing.  Called by the signal handler.

        Raises `Cancelled`, unless that is deferred, or the handler's task is to be cancelled by its loop, or an
        earlier `Cancelled` is on its way.
        """
        if not self._armed:
            return
        if not self.requested:
            self.requested = self._is_pending = True
        if self._depth == 0 and self._is_pending:
            if self._hook.is_running:  # what is raised in a hook is lost
                self._ask_again_later()
            else:
                self._deliver()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let nothing be raised inside the block; a request that came meanwhile is raised at the outermost exit.

        Around whatever must not be cut in the middle, as a frame on the pipe.  In other threads it does nothing, for
        nothing is ever raised there.
        """
        if not _is_main_thread():
            yield
            return
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0 and self._is_pending and self._armed:
                self._deliver()

    def _deliver(self) -> None:
        self._is_pending = False
        if self._coroutine is None or self._is_running(self._coroutine):
            raise self._watch(Cancelled(_REASON))  # no name for it: the frame would keep it alive
        self._coroutine.loop.call_soon_threadsafe(self._cancel, self._coroutine.task)

    def _is_running(self, coroutine: _Coroutine) -> bool:
        """Whether an exception raised here ends up in the task: in its own step, or after its end."""
        import asyncio  # loaded already, or there would be no task; see the top

        return coroutine.task.done() or asyncio.current_task(coroutine.loop) is coroutine.task

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        # The loop comes to it later, perhaps after the job's end.
        if self._armed:
            self._expects_throw = True
            task.cancel()

    def _on_throw(self, error: BaseException) -> bool:
        """The loop throws this into the handler's coroutine; only the first one after `_cancel` is ours.

        Return whether it must not be swallowed, as an earlier one was.
        """
        if not self._expects_throw:
            return False
        self._expects_throw = False
        self._watch(error, is_thrown=True)
        return self._drops > 0

    def _watch(self, error: BaseException, *, is_thrown: bool = False) -> BaseException:
        self._raised = weakref.ref(error, self._on_dropped)
        self._was_thrown = is_thrown
        return error

    def _on_unraisable(self, error: BaseException) -> bool:
        """Python is about to drop `error`.  Return whether that is nothing but our `Cancelled`."""
        if self._target is not None and isinstance(error, Cancelled):  # what cut a callback short, see `_pass_by`
            sys.settrace(self._pass_by)
            return True
        code = error.__traceback__.tb_frame.f_code if error.__traceback__ is not None else None
        self._callback = None if code is None or code.co_name == "__del__" else code
        raised = self._raised() if self._raised is not None else None
        self._is_unraisable = raised is not None and raised in chain_of(error)
        return raised is error

    def _on_dropped(self, _reference: object) -> None:
        """What was raised exists no more.  Called by Python where the last reference to it went."""
        if not self._armed:
            return
        self._drops += 1
        is_certain = self._is_unraisable or self._drops > 1
        self._is_unraisable = False
        # The loop holds what it throws until the coroutine waits again: this is not where that was swallowed.
        if is_certain and not self._was_thrown and _is_main_thread() and sys.gettrace() is None:
            self._raise_in(sys._getframe(1))  # noqa: SLF001 - the only way to the frame that goes on
        self._ask_again_later()

    def _ask_again_later(self) -> None:
        self._over.set()
        self._over = threading.Event()
        with suppress(RuntimeError):  # no thread more may be started
            threading.Thread(target=self._remind, args=(self._over,), daemon=True).start()

    def _raise_in(self, frame: FrameType) -> None:
        """Have `Cancelled` raised at the next step of `frame`.

        Not at once: what a callback raises is dropped again.  Nor by a signal: its handler runs at the next step of
        whatever frame, which mostly is that of another callback.
        """
        self._target = frame
        frame.f_trace_opcodes = True
        frame.f_trace = self._on_step
        sys.settrace(self._pass_by)

    def _pass_by(self, frame: FrameType, _event: str, _argument: object) -> None:
        """Trace no frame that begins; but end each call of a callback at once, so that the C code soon returns."""
        if self._armed and frame.f_code is self._callback and frame.f_back is self._target:
            raise Cancelled(_REASON)

    def _on_step(self, frame: FrameType, _event: str, _argument: object) -> None:
        sys.settrace(None)
        self._target = None
        frame.f_trace = None
        frame.f_trace_opcodes = False
        if self._armed:
            self._is_pending = True
            if self._depth == 0:
                self._is_pending = False
                raise self._watch(Cancelled(_REASON))

    def _remind(self, over: threading.Event) -> None:
        """In a thread: ask again, with a signal, as that ends a wait of the main thread."""
        if not over.wait(RAISE_AGAIN_AFTER):
            raised = self._raised() if self._raised is not None else None
            # A handler that has given SIGTERM back to the system would be killed by it.
            if raised is None and self._armed and callable(signal.getsignal(signal.SIGTERM)):
                self._is_pending = True
                signal.pthread_kill(_main_thread(), signal.SIGTERM)


class _Hook:
    """Learns of the exceptions that Python drops; what is not ours goes on to the hook before it."""

    def __init__(self, on_drop: Callable[[BaseException], bool]) -> None:
        self._on_drop = on_drop
        self._before: Callable[[sys.UnraisableHookArgs], Any] | None = None
        self.is_running = False

    def install(self) -> None:
        # Not again above a hook that a handler has left there: that one may call us.
        if self._before is None:
            self._before = sys.unraisablehook
            sys.unraisablehook = self._take

    def remove(self) -> None:
        if self._before is not None and sys.unraisablehook == self._take:
            sys.unraisablehook = self._before
            self._before = None

    def _take(self, dropped: sys.UnraisableHookArgs) -> None:
        self.is_running = True
        try:
            is_ours = dropped.exc_value is not None and self._on_drop(dropped.exc_value)
            if not is_ours and self._before is not None:
                self._before(dropped)
        finally:
            self.is_running = False


def _main_thread() -> int:
    ident = threading.main_thread().ident
    assert ident is not None
    return ident


def _is_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident
