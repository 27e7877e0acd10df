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
from typing import Any

from supervisor.handler_api.log_handler import LogHandler, fitted, write_line
from supervisor.text.value_repr import value_repr

Send = Callable[[int, str, str], None]
"""Sends level, logger and text of one record, or raises `RuntimeError` and has sent nothing."""

LEVEL = logging.INFO
"""What is logged unless a module sets another level."""
_LONGEST_NAME = 200


class LibraryLog(LogHandler):
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

    def emit(self, record: logging.LogRecord) -> None:
        if _is_printed(record):  # by a handler of the author's: once is enough
            return
        text = fitted(self._text(record))
        name = fitted(str(record.name), _LONGEST_NAME)
        if self.send is not None and self._pid == os.getpid():
            try:
                self.send(record.levelno, name, text)
            except RuntimeError:  # the job is over
                pass
            else:
                return
        write_line(f"{record.levelname} {name}: {text}")

    def _text(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record).rstrip()
        except Exception:  # noqa: BLE001 - arguments that do not fit must not fail the job
            return str.__str__(record.msg) if isinstance(record.msg, str) else value_repr(record.msg)


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
