"""What the log handlers of a child share: a lock that is none, texts that fit a message, a line on standard error."""

from __future__ import annotations

import logging
import os
from contextlib import suppress

MAX_TEXT = 16 * 1024
"""Characters of one record."""


class _NoLock:
    """Has the methods that `logging` calls on a handler's lock, and locks nothing."""

    def acquire(self) -> None: ...

    def release(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *raised: object) -> None: ...


class LogHandler(logging.Handler):
    """A handler without a lock: `Cancelled` could leave it locked.  The way to the parent has a lock of its own."""

    def createLock(self) -> None:  # noqa: N802 - logging's name
        # Not None: since Python 3.13 `Handler.handle` enters it.
        self.lock = _NoLock()  # type: ignore[assignment]  # it has what `logging` uses of an RLock


def fitted(text: str, limit: int = MAX_TEXT) -> str:
    """Return `text` as a message can hold it: valid as UTF-8, and cut after `limit` characters."""
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text)} characters)"
    return text.encode("utf-8", "backslashreplace").decode()


def write_line(text: str) -> None:
    """Write a line to descriptor 2, which the parent logs as a printed one."""
    # Not sys.stderr: another thread may have held its lock at the fork, or the handler have replaced it.
    with suppress(OSError):  # closed, or its reader gone
        os.write(2, f"{text}\n".encode())
