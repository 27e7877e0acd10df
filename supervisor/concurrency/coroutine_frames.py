"""Where a coroutine waits.  Pure, and without asyncio: a child need not carry it."""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType
from typing import Any


def coroutine_frames(coroutine: Any) -> Iterator[FrameType]:
    """Those of the coroutines that wait for each other, the innermost last.

    Not `Task.get_stack`: of a task that waits it knows the outermost frame only.
    """
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None:
            yield frame
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
