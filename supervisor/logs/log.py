"""Set-up and format of the parent's log.

Lines go to standard error: colored on a terminal, with priorities under systemd, as JSON otherwise.  Logging never
raises for any value or broken stream, and never shows an API key.  A format string that does not fit its arguments does
raise, so that tests find it.  Loggers come from `structlog.get_logger(__name__)`, with ids
(`get_logger(name, job_id=…)`), and cost little until they are used.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor

from supervisor.job import Job
from supervisor.logs.outlet import LogWriter
from supervisor.logs.redaction import Mask, redact
from supervisor.text.log_level import known_level
from supervisor.text.printable import MAX_NAME_CHARS, escaped, shortened

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_NAMES = frozenset({"job_id", "run_id", "action"})
"""Fields from the server, which may have any length."""
_FIRST = ("ts", "level", "event", "logger")
_PLAIN_VALUE = re.compile(r"[^\s\"'=\\]+")


class Line:
    """The innermost logger, which passes finished lines to the writer."""

    def __init__(self, name: str, outlet: LogWriter) -> None:
        self.name = name
        self.msg = outlet.write
        self.debug = self.info = self.warning = self.error = self.critical = outlet.write


class JobLog(msgspec.Struct, eq=False):
    """The logger of a job in a slot, with the pid of its child.

    The structlog logger is created at each use, because most jobs log nothing.
    """

    slot: int
    job: Job
    pid: int | None

    def __getattr__(self, method: str) -> Any:
        job = self.job
        logger = structlog.get_logger(
            "slot",
            slot=self.slot,
            job_id=job.job_id,
            run_id=job.run_id,
            action=job.action,
            attempt=job.attempt,
            pid=self.pid,
        )
        return getattr(logger, method)


class _FromLogging(logging.Handler):
    """Passes the records of libraries that use `logging` to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's wrong format string must not end the caller
            text = str(record.msg)
        structlog.get_logger(record.name).log(known_level(record.levelno), text, exc_info=record.exc_info)


def configure(level: str, line_format: str, *, mask: Mask | None = None, stream: TextIO | None = None) -> None:
    """Set up logging for the whole process; a second call replaces the first.

    `level` and `line_format` are `Settings.log_level` and `Settings.log_format`; `mask` hides its secrets.
    """
    least = _LEVELS[choose_level(level, os.environ)]
    target: TextIO | None = stream or sys.stderr
    outlet = _outlet_of(target)
    chosen = choose_format(line_format, target, os.environ)
    is_colored = _is_terminal(target) and not os.environ.get("NO_COLOR")  # https://no-color.org
    structlog.configure(
        processors=_processors(chosen, mask or Mask(), is_colored=is_colored),
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=lambda name="supervisor": Line(name, outlet),
        # A cached logger would keep the secrets and the stream of its first use.
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_FromLogging()], level=least, force=True)


@lru_cache(maxsize=1)  # a reload sets up logging anew, and must not write beside a thread that still writes
def _outlet_of(stream: TextIO | None) -> LogWriter:
    return LogWriter(stream)


def is_enabled(level: str) -> bool:
    """True if lines of this level are written.  For callers to whom even building a line costs too much."""
    return logging.root.level <= _LEVELS[level]


def choose_level(level: str, environment: Mapping[str, str]) -> str:
    """Return `level`, or `debug` if systemd starts the service for debugging (systemd.exec(5), DEBUG_INVOCATION)."""
    return "debug" if environment.get("DEBUG_INVOCATION") == "1" else level


def choose_format(line_format: str, stream: TextIO | None, environment: Mapping[str, str]) -> str:
    """Return `console`, `json` or `journal`; choose by the stream if `line_format` is `auto`."""
    if line_format != "auto":
        return line_format
    if _is_terminal(stream):
        return "console"
    return "journal" if environment.get("JOURNAL_STREAM", "-") == _identity(stream) else "json"


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def _identity(stream: TextIO | None) -> str:
    """Return device and inode in the form of `$JOURNAL_STREAM` (systemd.exec(5)); empty without a descriptor."""
    try:
        status = os.fstat(stream.fileno()) if stream else None
    except (OSError, ValueError):
        return ""
    return f"{status.st_dev}:{status.st_ino}" if status else ""


def _processors(line_format: str, mask: Mask, *, is_colored: bool) -> list[Processor]:
    renderers: dict[str, list[Processor]] = {
        "console": [_escape, _console(is_colored=is_colored)],
        "journal": [render_journal],
        "json": [render_json],
    }
    return [
        structlog.contextvars.merge_contextvars,
        _add_logger,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
        redact(mask),
        _shorten_names,  # after `redact`, which does not recognize a cut key
        *renderers[line_format],
    ]


def _add_logger(logger: Any, _method: str, event: EventDict) -> EventDict:
    event.setdefault("logger", logger.name)  # lines of a handler use the logger of its slot, with their own name
    return event


def _shorten_names(_logger: Any, _method: str, event: EventDict) -> EventDict:
    for key in _NAMES & event.keys():
        event[key] = shortened(str(event[key]), MAX_NAME_CHARS)
    return event


def _console(*, is_colored: bool) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=is_colored,
        sort_keys=False,
        timestamp_key="ts",
        exception_formatter=structlog.dev.plain_traceback,
    )


def render_json(_logger: Any, _method: str, event: EventDict) -> str:
    """Return one line of JSON that begins with `ts level event logger`."""
    ordered = {key: event[key] for key in _FIRST if key in event} | dict(event)
    return escaped(json.dumps(ordered, ensure_ascii=False, separators=(",", ":")))


def render_journal(_logger: Any, _method: str, event: EventDict) -> str:
    """Return `<priority>event key=value …`; each line of a traceback gets the same priority."""
    priority = f"<{_PRIORITIES[event.pop('level')]}>"
    event.pop("ts", None)  # the journal keeps the time itself
    traceback = event.pop("exception", "")
    first = " ".join([event.pop("event", ""), *(f"{key}={_value(value)}" for key, value in event.items())])
    return "\n".join(priority + escaped(line) for line in [first, *traceback.splitlines()])


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if _PLAIN_VALUE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _escape(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {escaped(key): _escape_value(key, value) for key, value in event.items()}


def _escape_value(key: str, value: object) -> object:
    if key == "exception" and isinstance(value, str):
        return "\n".join(escaped(line) for line in value.split("\n"))
    if isinstance(value, dict | list):
        return escaped(json.dumps(value, ensure_ascii=False))
    return escaped(value) if isinstance(value, str) else value
