"""Wrapper of a handler's coroutine that observes exceptions thrown by the loop.  Runs in a child's main thread.

Tested by tests/handler_api/test_interruption.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from opcode import opmap
from types import FrameType
from typing import Any

from supervisor.concurrency.coroutine_frames import coroutine_frames

MakeError = Callable[[], BaseException]
"""Makes the exception that replaces a swallowed one."""
_TRACES_WAITING = sys.version_info < (3, 12)
"""True if Python traces a coroutine that was waiting when tracing began.  Later versions trace from its next call or
loop.  There, a coroutine that swallows each `CancelledError` gets another one every `RAISE_AGAIN_AFTER`."""
_MAX_CHAIN_LENGTH = 16
"""Limit of the examined causes of an exception."""


class Watched:
    """An awaitable that runs a coroutine and reports exceptions thrown into it."""

    cr_frame = None
    """None, as this wrapper has no frame.  Stack readers follow `cr_await` to the coroutine."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], on_throw: Callable[[BaseException], bool], make_error: MakeError
    ) -> None:
        self.cr_await = coroutine
        self._on_throw = on_throw
        self._make_error = make_error

    def __await__(self) -> Watched:
        return self

    def __iter__(self) -> Watched:
        return self

    def __next__(self) -> Any:
        return self.cr_await.send(None)

    def send(self, value: Any) -> Any:
        return self.cr_await.send(value)

    def throw(self, *error: Any) -> Any:
        thrown = next(part for part in (*error, None) if part is None or isinstance(part, BaseException))
        if thrown is None or not self._on_throw(thrown) or not _TRACES_WAITING or sys.gettrace() is not None:
            return self.cr_await.throw(*error)
        with _unswallowed(thrown, list(coroutine_frames(self.cr_await)), self._make_error):
            return self.cr_await.throw(*error)

    def close(self) -> None:
        self.cr_await.close()


@contextmanager
def _unswallowed(error: BaseException, frames: list[FrameType], make_error: MakeError) -> Iterator[None]:
    """Raise a new exception after each `except` block of these frames that swallows `error`."""
    handling = set[FrameType]()

    def on_step(frame: FrameType, event: str, _argument: object) -> Any:
        if error in chain_of(sys.exception()):
            handling.add(frame)
        elif frame in handling and event == "opcode" and not _passes_on(frame):
            raise make_error()
        return on_step

    for frame in frames:
        frame.f_trace_opcodes = True
        frame.f_trace = on_step
    sys.settrace(_pass_by)
    try:
        yield
    finally:
        sys.settrace(None)
        for frame in frames:
            frame.f_trace = None
            frame.f_trace_opcodes = False


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and its causes."""
    for _ in range(_MAX_CHAIN_LENGTH):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _passes_on(frame: FrameType) -> bool:
    """True if the frame's next opcode raises the handled exception again, as at the end of a `finally`."""
    return frame.f_code.co_code[frame.f_lasti] == opmap["RERAISE"]


def _pass_by(*_: object) -> None:
    """Trace no new frame."""
