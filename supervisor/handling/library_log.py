"""The handler of the root logger: what handlers and their libraries log reaches the supervisor's log at its level.

Runs in the zygote, while modules are imported, and in its children.  It owns where records go: to the parent while
there is a way to it, otherwise to standard error, whose lines the parent logs as printed ones.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

Send = Callable[[int, str, str], None]
"""Sends level, logger and text of one record, or raises `RuntimeError` and has sent nothing."""

LEVEL = logging.INFO
"""What is logged unless a module sets another level."""
_LONGEST_TEXT = 16 * 1024
_LONGEST_NAME = 200


class LibraryLog(logging.Handler):
    """Passes on the records of all loggers but those of `Context.log`, which have a handler of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.send: Send | None = None
        self._pid = os.getpid()

    @classmethod
    def install(cls) -> LibraryLog:
        """Put one on the root logger.  Called once, in the zygote, before any module is imported."""
        installed = cls()
        logging.root.setLevel(LEVEL)
        installed.restore()
        logging.basicConfig = _basic_config(installed, logging.basicConfig)
        logging.captureWarnings(True)
        return installed

    def restore(self) -> None:
        """Stand on the root logger, also when a module has configured `logging` in a way that removed us."""
        if self not in logging.root.handlers:
            logging.root.addHandler(self)

    def use(self, send: Send | None) -> None:
        """From now on records go this way."""
        self.send, self._pid = send, os.getpid()

    def handle(self, record: logging.LogRecord) -> bool:
        """As in `logging`, without its lock: `Cancelled` could leave that locked.  `send` has a lock of its own."""
        passes = self.filter(record)
        if passes:
            self.emit(record)
        return bool(passes)

    def emit(self, record: logging.LogRecord) -> None:
        if _is_printed(record):  # by a handler of the author's: once is enough
            return
        text = _fit(self._text(record), _LONGEST_TEXT)
        name = _fit(str(record.name), _LONGEST_NAME)
        if self.send is not None and self._pid == os.getpid():
            try:
                self.send(record.levelno, name, text)
            except RuntimeError:  # the job is over
                pass
            else:
                return
        _print(f"{record.levelname} {name}: {text}")

    def _text(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record).rstrip()
        except Exception:  # noqa: BLE001 - arguments that do not fit must not fail the job
            return f"{str.__str__(str(record.msg)) if isinstance(record.msg, str) else type(record.msg)}"


def _basic_config(ours: LibraryLog, original: Callable[..., None]) -> Callable[..., None]:
    """`logging.basicConfig` does nothing when the root logger has a handler, which it always has here."""

    @functools.wraps(original)
    def basic_config(**options: Any) -> None:
        logging.root.removeHandler(ours)
        before = list(logging.root.handlers)
        try:
            original(**options)
        finally:
            for added in [each for each in logging.root.handlers if each not in before]:
                if _is_console(added):
                    logging.root.removeHandler(added)  # its lines would be printed ones, without level and logger
            ours.restore()

    return basic_config


def _is_printed(record: logging.LogRecord) -> bool:
    """Whether a handler between the record's logger and the root prints it."""
    logger: logging.Logger | None = logging.root if record.name == "root" else logging.getLogger(record.name)
    while logger is not None:
        if any(_is_console(handler) and record.levelno >= handler.level for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _is_console(handler: logging.Handler) -> bool:
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    stream = getattr(handler, "stream", None)
    return stream is not None and any(stream is standard for standard in streams)


def _print(text: str) -> None:
    # Not sys.stderr: another thread may have held its lock at the fork, or the handler have replaced it.
    with suppress(OSError):  # closed, or its reader gone
        os.write(2, f"{text}\n".encode())


def _fit(text: str, limit: int) -> str:
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text)} characters)"
    return text.encode("utf-8", "backslashreplace").decode()
