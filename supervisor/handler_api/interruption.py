"""Turns a stop request (SIGTERM) into `Cancelled` in the handler's code.  Runs in the main thread of a child.

`Interruption` knows whether a job can be interrupted now, whether a stop was requested, and whether the raised
`Cancelled` still propagates.  `child.child_main` installs the signal handler.

`Cancelled` is raised again only when the first exception was lost.  Python keeps an exception object alive while it
propagates and while an `except`, `finally` or `with` block handles it.  An exception that is freed while the handler
continues is therefore lost.  Cleanup that runs because of `Cancelled` is never interrupted.

    freed after sys.unraisablehook   Python drops exceptions of `__del__`, of callbacks of C code and of hooks.
                                     Raise again at the next opcode of the frame that dropped it
    freed for the first time         An `except` block swallowed it.  Perhaps on purpose, and the handler returns
                                     soon: raise again after `RAISE_AGAIN_AFTER`
    freed for the second time        An `except` in a loop swallowed it.  Raise again at the next opcode of the frame
                                     that dropped it, which is outside that `except`
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
    # Few handlers are coroutines; the other children save the memory of asyncio.
    import asyncio

RAISE_AGAIN_AFTER = 0.5
"""Seconds between a handler's `except` that swallows `Cancelled` and the next `Cancelled`."""
_REASON = "the job was asked to stop"


class Cancelled(BaseException):
    """The job must stop, because of the server, a timeout, a limit or a shutdown.

    Raised in the running handler, so that its `finally` and `with` blocks run.  It is a `BaseException`, like
    `KeyboardInterrupt` and `asyncio.CancelledError`: an `except Exception` around one item of the work must not
    swallow it.
    """


class _Coroutine(NamedTuple):
    """The handler's task, when the handler is a coroutine function."""

    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[Any]


class Interruption:
    """Raises `Cancelled` for a stop request during a job, and raises it again when the first exception was lost.

    Call `arm`, `disarm`, `attach` and `request` in the main thread, where Python runs signal handlers.  A `Cancelled`
    may arrive just before `disarm`, so its caller must catch it:

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
        """True if this job was asked to stop; stays set after `disarm`."""
        self._armed = False
        self._is_pending = False  # `Cancelled` must be raised as soon as possible
        self._depth = 0
        self._coroutine: _Coroutine | None = None
        self._expects_throw = False  # the loop is about to throw into the handler's coroutine
        self._was_thrown = False  # by the loop: the last exception
        self._raised: weakref.ref[BaseException] | None = None
        self._drops = 0  # lost exceptions of this job
        self._is_unraisable = False  # Python is about to drop the last exception
        self._target: FrameType | None = None  # the frame that raises next
        self._callback: CodeType | None = None  # the code that dropped the last exception
        self._over = threading.Event()
        self._hook = _Hook(self._on_unraisable)

    def arm(self) -> None:
        """Begin a job, which a request interrupts from now on."""
        self.disarm()  # the last job's `disarm` may itself have been interrupted
        self.requested = self._is_pending = self._expects_throw = self._is_unraisable = False
        self._drops = 0
        self._hook.install()
        self._armed = True

    def disarm(self) -> None:
        """End the job.  After this returns, nothing is raised, not even a deferred `Cancelled`."""
        self._armed = False
        self._coroutine = None
        self._raised = None
        if self._target is not None:
            self._target = None
            sys.settrace(None)
        self._over.set()
        self._hook.remove()

    def attach(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """Set the handler's task.  While the task waits, a request cancels it instead of raising in the loop's code."""
        self._coroutine = _Coroutine(loop, task)

    def watched(self, coroutine: Coroutine[Any, Any, Any]) -> Watched:
        """Wrap the handler's coroutine so that a lost `asyncio.CancelledError` is detected."""
        return Watched(coroutine, self._on_throw, lambda: self._watch(Cancelled(_REASON)))

    @property
    def waits_in(self) -> asyncio.AbstractEventLoop | None:
        """The loop of the handler's task while the task waits; None without a task, or while the task runs."""
        if self._coroutine is None or self._is_running(self._coroutine):
            return None
        return self._coroutine.loop

    def request(self) -> None:
        """Ask the running job to stop; do nothing without a job.  Called by the signal handler.

        Raises `Cancelled`, unless raising is deferred, the loop cancels the handler's task, or an earlier `Cancelled`
        still propagates.
        """
        if not self._armed:
            return
        if not self.requested:
            self.requested = self._is_pending = True
        if self._depth == 0 and self._is_pending:
            if self._hook.is_running:  # an exception raised in a hook is lost
                self._ask_again_later()
            else:
                self._deliver()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Raise nothing inside the block.  A request within it raises `Cancelled` at the outermost exit.

        For code that must not be interrupted, such as writing a frame to the pipe.  Does nothing in other threads,
        where nothing is ever raised.
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
            raise self._watch(Cancelled(_REASON))  # no local variable: the frame would keep the exception alive
        self._coroutine.loop.call_soon_threadsafe(self._cancel, self._coroutine.task)

    def _is_running(self, coroutine: _Coroutine) -> bool:
        """True if an exception raised now reaches the task's code or its caller, because the task runs or has ended."""
        import asyncio  # already loaded, because there is a task; see the import block

        return coroutine.task.done() or asyncio.current_task(coroutine.loop) is coroutine.task

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        # The loop calls this later, perhaps after the end of the job.
        if self._armed:
            self._expects_throw = True
            task.cancel()

    def _on_throw(self, error: BaseException) -> bool:
        """Handle an exception that the loop throws into the coroutine; only the first after `_cancel` is a stop.

        Return True if an earlier exception was swallowed, so that this one must not be.
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
        """Handle an exception that Python is about to drop.  Return True if it is only our `Cancelled`."""
        if self._target is not None and isinstance(error, Cancelled):  # raised by `_pass_by` to end a callback
            sys.settrace(self._pass_by)
            return True
        code = error.__traceback__.tb_frame.f_code if error.__traceback__ is not None else None
        self._callback = None if code is None or code.co_name == "__del__" else code
        raised = self._raised() if self._raised is not None else None
        self._is_unraisable = raised is not None and raised in chain_of(error)
        return raised is error

    def _on_dropped(self, _reference: object) -> None:
        """Handle the loss of the last exception.  Python calls this in the frame that dropped the last reference."""
        if not self._armed:
            return
        self._drops += 1
        is_certain = self._is_unraisable or self._drops > 1
        self._is_unraisable = False
        # The loop keeps a thrown exception until the coroutine waits again, so this frame did not swallow it.
        if is_certain and not self._was_thrown and _is_main_thread() and sys.gettrace() is None:
            self._raise_in(sys._getframe(1))  # noqa: SLF001 - the only access to the frame that continues
        self._ask_again_later()

    def _ask_again_later(self) -> None:
        self._over.set()
        self._over = threading.Event()
        with suppress(RuntimeError):  # no further thread can be started
            threading.Thread(target=self._remind, args=(self._over,), daemon=True).start()

    def _raise_in(self, frame: FrameType) -> None:
        """Raise `Cancelled` at the next opcode of `frame`.

        Not at once, because Python drops an exception of a callback again.  Not by a signal, because its handler runs
        in the current frame, which is usually that of another callback.
        """
        self._target = frame
        frame.f_trace_opcodes = True
        frame.f_trace = self._on_step
        sys.settrace(self._pass_by)

    def _pass_by(self, frame: FrameType, _event: str, _argument: object) -> None:
        """Trace no new frame, but end each call of the callback at once, so that the C code soon returns."""
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
        """Request again after a while, in a thread.  Uses a signal, because that ends a wait of the main thread."""
        if not over.wait(RAISE_AGAIN_AFTER):
            raised = self._raised() if self._raised is not None else None
            # If the handler has restored the default action of SIGTERM, the signal would kill the child.
            if raised is None and self._armed and callable(signal.getsignal(signal.SIGTERM)):
                self._is_pending = True
                signal.pthread_kill(_main_thread(), signal.SIGTERM)


class _Hook:
    """Hook for exceptions that Python drops; passes on all but our own to the previous hook."""

    def __init__(self, on_drop: Callable[[BaseException], bool]) -> None:
        self._on_drop = on_drop
        self._before: Callable[[sys.UnraisableHookArgs], Any] | None = None
        self.is_running = False

    def install(self) -> None:
        # Not again above a hook that a handler has installed, because that hook may call this one.
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
