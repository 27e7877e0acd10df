"""The handler of the root logger, which sends records of handlers and libraries to the supervisor's log.

Runs in the zygote during imports, and in children.  Records go to the parent while the channel is open, otherwise to
standard error, whose lines the parent logs as printed output.  Tested by tests/handler_api/test_odd_handlers.py.
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
"""Sends level, logger and text of one record; raises `RuntimeError` when it cannot send it."""

LEVEL = logging.INFO
"""Default level of the root logger."""
_MAX_NAME_CHARS = 200


class LibraryLog(LogHandler):
    """Sends the records of all loggers except `Context.log`, which has its own handler."""

    def __init__(self) -> None:
        super().__init__()
        self.send: Send | None = None
        self._pid = os.getpid()

    @classmethod
    def install(cls) -> LibraryLog:
        """Add the handler to the root logger.  Called once, in the zygote, before any module is imported."""
        installed = cls()
        logging.root.setLevel(LEVEL)
        installed.restore()
        logging.basicConfig = _basic_config(installed, logging.basicConfig)
        logging.captureWarnings(True)
        return installed

    def restore(self) -> None:
        """Add the handler to the root logger again if a module has removed it."""
        if self not in logging.root.handlers:
            logging.root.addHandler(self)

    def use(self, send: Send | None) -> None:
        """Send records with `send` from now on; None for standard error."""
        self.send, self._pid = send, os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        if _is_printed(record):  # another handler has already printed this record
            return
        text = fitted(self._text(record))
        name = fitted(str(record.name), _MAX_NAME_CHARS)
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
    """Wrap `logging.basicConfig`, which otherwise does nothing because the root logger already has our handler."""

    @functools.wraps(original)
    def basic_config(**options: Any) -> None:
        logging.root.removeHandler(ours)
        before = list(logging.root.handlers)
        try:
            original(**options)
        finally:
            for added in [each for each in logging.root.handlers if each not in before]:
                if _is_console(added):
                    logging.root.removeHandler(added)  # its lines would lose level and logger
            ours.restore()

    return basic_config


def _is_printed(record: logging.LogRecord) -> bool:
    """True if a handler between the record's logger and the root prints the record."""
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
