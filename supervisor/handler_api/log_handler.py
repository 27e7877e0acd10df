"""Base of the child's log handlers: no lock, text limited for a message, lines on standard error.

Tested by tests/handler_api/test_context.py.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress

MAX_TEXT_CHARS = 16 * 1024
"""Limit of the text of one record."""


class _NoLock:
    """A lock that never blocks, with the methods that `logging` calls."""

    def acquire(self) -> None: ...

    def release(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *raised: object) -> None: ...


class LogHandler(logging.Handler):
    """A handler without a lock, because `Cancelled` could leave it locked.  The channel to the parent has a lock."""

    def createLock(self) -> None:  # noqa: N802 - logging's name
        # Not None: since Python 3.13 `Handler.handle` enters it.
        self.lock = _NoLock()  # type: ignore[assignment]  # it has what `logging` uses of an RLock


def fitted(text: str, limit: int = MAX_TEXT_CHARS) -> str:
    """Return `text` as valid UTF-8, cut after `limit` characters."""
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text)} characters)"
    return text.encode("utf-8", "backslashreplace").decode()


def write_line(text: str) -> None:
    """Write a line to descriptor 2; the parent logs it as printed output."""
    # Not sys.stderr: another thread may have held its lock at the fork, or the handler may have replaced it.
    with suppress(OSError):  # descriptor closed, or no reader
        os.write(2, f"{text}\n".encode())
