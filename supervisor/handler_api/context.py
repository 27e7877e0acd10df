"""The `Context` of a job: its data, and its events, progress and log records.  Runs in the child, one for each job.

Events are checked here, so that a mistake raises in the handler's own code.  The channel to the parent closes with the
job, so that a leftover thread of one job cannot write into the next job.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex, TypeVar

from supervisor.handler_api.encoding import NotJson, encode_json
from supervisor.handler_api.interruption import Cancelled, Interruption
from supervisor.handler_api.log_handler import LogHandler, fitted, write_line
from supervisor.handler_api.numbers import finite_number
from supervisor.ipc.messages import EventEmitted, Logged
from supervisor.job import EVENT_TYPE, MAX_PAYLOAD_BYTES, Event, Job
from supervisor.text.value_repr import type_name

__all__ = ["Cancelled", "Context", "PermanentError"]

_MAX_MESSAGE_CHARS = 2000
"""Limit of a progress message: escaped, a character takes at most six bytes of the payload's 16 KiB."""
_PROGRESS_INTERVAL = 0.5
"""Minimum seconds between two progress events of `track`."""

Item = TypeVar("Item")
Number = SupportsIndex | SupportsFloat
SendToParent = Callable[[EventEmitted | Logged], None]


class PermanentError(Exception):
    """Raise this in a handler when a retry cannot succeed.  Usual retry policies do not retry this error type."""


class Context:
    """The running job: its ids and parameters, and methods to report progress and to react to a stop request.

    All methods are thread-safe, and work in every thread of the handler's process.

    `attempt` counts from 1.  `parameters` holds all parameters of the job as plain JSON values, including those that
    the function does not take as arguments.
    """

    def __init__(
        self,
        job: Job,
        *,
        worker_id: str,
        workdir: str,
        parameters: dict[str, Any],
        channel: ParentChannel,
        interruption: Interruption,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job_id = job.job_id
        self.run_id = job.run_id
        self.workflow_name = job.workflow_name
        self.step_name = job.step_name
        self.action = job.action
        self.attempt = job.attempt
        self.queue = job.queue
        self.worker_id = worker_id
        self.parameters = parameters
        self._workdir = workdir
        self._interruption = interruption
        self._clock = clock
        self._channel = channel

    def __repr__(self) -> str:
        return f"<Context {self.action} {self.job_id}#{self.attempt}>"

    @cached_property
    def log(self) -> logging.Logger:
        """A standard logger for this job.  Its records appear in the supervisor's log with the ids of the job.

        In a process that the handler forked, records go to standard error and are logged like printed lines.
        """
        # Not getLogger: that never frees a logger, and passes the records on to the handler's own logging.
        logger = logging.Logger(f"{self.action}.{self.job_id}", logging.DEBUG)  # noqa: LOG001 - see above
        logger.addHandler(_LogToParent(self._channel))
        return logger

    @property
    def cancelled(self) -> bool:
        """True if the job was asked to stop.  For threads, and for code that must not be interrupted by `Cancelled`."""
        return self._interruption.requested

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if the job was asked to stop."""
        if self.cancelled:
            raise Cancelled(f"job {self.job_id} was asked to stop")

    @property
    def workdir(self) -> Path:
        """A private directory of this job: created empty on first use, deleted with its content after the job."""
        folder = Path(self._workdir)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def emit(self, type: str, payload: object) -> None:  # noqa: A002 - the protocol's own word for it
        """Publish an event of this run.

        `type` is 1 to 64 of the characters `a-z`, `A-Z`, `0-9`, `_`, `.` and `-`, and must not begin with `mobius.`.
        `payload` is a dict, dataclass or msgspec struct of at most 16 KiB as JSON.

        Raises `ValueError` for an invalid type or payload.  Raises `RuntimeError` after the end of the job, and in a
        process that the handler forked.
        """
        self._channel.send(EventEmitted(Event(_checked_type(type), _checked_payload(type, payload))))

    def progress(self, done: Number, total: Number | None = None, message: str | None = None) -> None:
        """Emit a `progress` event at once.  Unlike `track`, this method does not limit the rate.

        Accepts every number type, also those of NumPy, `Decimal` and `Fraction`.  NaN and infinity are left out of the
        event, like an unknown total.  A message of more than 2000 characters is cut.
        """
        payload = {
            "done": finite_number("done", done),
            "total": finite_number("total", total),
            "message": None if message is None else fitted(str(message), _MAX_MESSAGE_CHARS),
        }
        self.emit("progress", {name: value for name, value in payload.items() if value is not None})

    def track(self, iterable: Iterable[Item], total: Number | None = None) -> Iterator[Item]:
        """Yield the items of `iterable` and emit progress: at the start, at the end, and twice a second between.

        An item counts as done when the loop requests the next one.  `total` defaults to `len(iterable)` if it has one.
        """
        if total is None:
            total = _length(iterable)
        done = reported = 0
        self.progress(done, total)
        due_at = self._clock() + _PROGRESS_INTERVAL
        for done, item in enumerate(iterable, 1):
            yield item
            if self._clock() >= due_at:
                self.progress(reported := done, total)
                due_at = self._clock() + _PROGRESS_INTERVAL
        if reported != done:
            self.progress(done, total)


class ParentChannel:
    """Channel of one job to the parent.  Thread-safe; unusable in forked processes and after the end of the job.

    `send` passes one message to the parent and blocks while the pipe is full.
    """

    def __init__(self, job_id: str, send: SendToParent, interruption: Interruption) -> None:
        self._job_id = job_id
        self._send: SendToParent | None = send
        self._sending_thread: int | None = None
        self._interruption = interruption
        # Reentrant: a destructor may log while its own thread holds the lock.
        self._lock = threading.RLock()
        self._pid = os.getpid()

    @property
    def is_forked(self) -> bool:
        """True if this is a process that the handler forked."""
        return os.getpid() != self._pid

    def send(self, message: EventEmitted | Logged) -> None:
        """Send a message; raise `RuntimeError` after the job, in a forked process, and within another message."""
        if self.is_forked:
            # Its frames on the pipe would mix with those of the child.
            raise RuntimeError(f"only the process that runs job {self._job_id} may use its context, not one it forked")
        # The garbage collector may run a finalizer that logs while this thread is sending a message.
        if self._sending_thread == threading.get_ident():
            raise RuntimeError(f"job {self._job_id} is in the middle of another message")
        with self._interruption.deferred(), self._lock:
            if self._send is None:
                raise RuntimeError(f"job {self._job_id} is over")
            self._sending_thread = threading.get_ident()
            try:
                self._send(message)
            finally:
                self._sending_thread = None

    def close(self) -> None:
        """Refuse further messages, for example of a leftover thread.  Call it after `Interruption.disarm`."""
        with self._lock:
            self._send = None


class _LogToParent(LogHandler):
    """Sends log records to the parent, and drops records after the end of the job.

    In a forked process it writes records to standard error, because the pipe belongs to the child.
    """

    def __init__(self, channel: ParentChannel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - arguments that do not fit must not fail the job
            text = f"{record.msg} {record.args!r}"
        if self._channel.is_forked:
            write_line(fitted(f"{record.levelname}: {text}"))
        else:
            with contextlib.suppress(RuntimeError):  # the job is over
                self._channel.send(Logged(record.levelno, fitted(text)))


def _length(iterable: Iterable[object]) -> int | None:
    """Return the number of items; None if unknown.  `len` raises for a range of more than `sys.maxsize` items."""
    if not isinstance(iterable, Sized):
        return None
    try:
        return len(iterable)
    except (TypeError, ValueError, OverflowError, NotImplementedError):
        return None


def _checked_type(type: object) -> str:  # noqa: A002 - as in `emit`
    if not isinstance(type, str) or not EVENT_TYPE.fullmatch(type):
        raise ValueError(f"the event type {type!r} is not 1 to 64 of the characters a-z, A-Z, 0-9, '_', '.' and '-'")
    if type.startswith("mobius."):
        raise ValueError(f"the event type {type!r} begins with 'mobius.', which is reserved for the server")
    return type


def _checked_payload(type: str, payload: object) -> bytes:  # noqa: A002 - as in `emit`
    try:
        encoded = encode_json(payload)
    except NotJson as error:
        raise ValueError(f"the payload of event {type!r} is not JSON: {error}") from error
    if not encoded.startswith(b"{"):
        raise ValueError(f"the payload of event {type!r} is not a JSON object but of type {type_name(payload)}")
    if len(encoded) > MAX_PAYLOAD_BYTES:
        raise ValueError(
            f"the payload of event {type!r} has {len(encoded)} bytes as JSON; {MAX_PAYLOAD_BYTES} are allowed"
        )
    return encoded
