"""The stack of a waiting coroutine.  Does not import asyncio, to save the memory in children.

Tested by tests/handler_api/test_interruption.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType
from typing import Any


def coroutine_frames(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of those it awaits, the innermost last.

    `Task.get_stack` returns only the outermost frame of a waiting task.
    """
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None:
            yield frame
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
