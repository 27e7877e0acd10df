"""The coroutine of a handler, run so that what its loop throws into it is seen.  In a child, in its main thread."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from opcode import opmap
from types import FrameType
from typing import Any

from supervisor.concurrency.coroutine_frames import coroutine_frames

Again = Callable[[], BaseException]
"""Makes the exception that takes the place of a swallowed one."""
_TRACES_WAITING = sys.version_info < (3, 12)
"""Whether Python traces a coroutine that waited when the tracing began; later versions begin at its next call or loop.
There, a coroutine that swallows each `CancelledError` in a loop is sent another one every `RAISE_AGAIN_AFTER`."""
_LONGEST_CHAIN = 16
"""Exceptions behind a dropped one that are looked at."""


class Watched:
    """An awaitable that runs a coroutine and notes what is thrown into it."""

    cr_frame = None
    """It has none of its own; with `cr_await` this is how those look who ask where a coroutine waits."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], on_throw: Callable[[BaseException], bool], again: Again
    ) -> None:
        self.cr_await = coroutine
        self._on_throw = on_throw
        self._again = again

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
        with _unswallowed(thrown, list(coroutine_frames(self.cr_await)), self._again):
            return self.cr_await.throw(*error)

    def close(self) -> None:
        self.cr_await.close()


@contextmanager
def _unswallowed(error: BaseException, frames: list[FrameType], again: Again) -> Iterator[None]:
    """While `error` is thrown into these frames: another one is raised behind each `except` block that swallows it."""
    handling = set[FrameType]()

    def on_step(frame: FrameType, event: str, _argument: object) -> Any:
        if error in chain_of(sys.exception()):
            handling.add(frame)
        elif frame in handling and event == "opcode" and not _passes_on(frame):
            raise again()
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
    for _ in range(_LONGEST_CHAIN):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _passes_on(frame: FrameType) -> bool:
    """Whether its next step raises again what it has just handled, as at the end of a `finally`."""
    return frame.f_code.co_code[frame.f_lasti] == opmap["RERAISE"]


def _pass_by(*_: object) -> None:
    """Trace none of the frames that begin."""
