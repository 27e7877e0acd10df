"""What a handler knows of its job and can say while it runs.  In the child, one context for each job.

It owns the handler's voice: events, progress and log lines, checked here, where the handler's author sees the mistake.
It sends nothing itself (`tell` does) and falls silent with the job, so that nothing of one job leaks into the next.
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

_LONGEST_MESSAGE = 2000
"""Characters of a message of progress: escaped, each takes six bytes at most of the payload's 16 KiB."""
_SECONDS_BETWEEN_PROGRESS = 0.5

Item = TypeVar("Item")
Number = SupportsIndex | SupportsFloat
SendToParent = Callable[[EventEmitted | Logged], None]


class PermanentError(Exception):
    """Raised by a handler when trying again cannot help; reported so that usual retry policies leave it alone."""


class Context:
    """One job, as its handler sees it.  Every method may be called from any thread of the handler's process.

    `attempt` counts from 1.  `parameters` holds all of the job's parameters, whatever the signature takes of them.
    Built by `child_main`: `tell` sends one message to the parent, blocks while the pipe is full, and is thread-safe.
    """

    def __init__(
        self,
        job: Job,
        *,
        worker_id: str,
        workdir: str,
        parameters: dict[str, Any],
        voice: ParentChannel,
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
        self._voice = voice

    def __repr__(self) -> str:
        return f"<Context {self.action} {self.job_id}#{self.attempt}>"

    @cached_property
    def log(self) -> logging.Logger:
        """A logger whose records appear in the supervisor's log, with the job's ids.

        Those of a process that the handler forked are written to standard error, and are logged as what it prints is.
        """
        # Not getLogger: that keeps each logger for ever, and would pass the records on to the handler's own logging.
        logger = logging.Logger(f"{self.action}.{self.job_id}", logging.DEBUG)  # noqa: LOG001 - see above
        logger.addHandler(_LogToParent(self._voice))
        return logger

    @property
    def cancelled(self) -> bool:
        """Whether the job was asked to stop; for threads, and for code that must not be interrupted by `Cancelled`."""
        return self._interruption.requested

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if the job was asked to stop."""
        if self.cancelled:
            raise Cancelled(f"job {self.job_id} was asked to stop")

    @property
    def workdir(self) -> Path:
        """An empty directory of this job, made on first use and removed with all it holds when the job is over."""
        folder = Path(self._workdir)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def emit(self, type: str, payload: object) -> None:  # noqa: A002 - the protocol's own word for it
        """Publish an event of this run.

        `type` is 1 to 64 of `[a-zA-Z0-9_.-]`, not beginning with `mobius.`; `payload` is a dict, dataclass or struct
        of at most 16 KiB as JSON.  Raises `ValueError` for anything else, `RuntimeError` once the job is over and
        in a process that the handler forked.
        """
        self._voice.send(EventEmitted(Event(_checked_type(type), _checked_payload(type, payload))))

    def progress(self, done: Number, total: Number | None = None, message: str | None = None) -> None:
        """Emit a `progress` event, as it is: `track` is the one that is sparing with them.

        Numbers are what Python takes for one: those of NumPy, `Decimal` and `Fraction` too.  One that is not finite is
        left out, as a total that is not known.  A message that is too long is cut.
        """
        said = {
            "done": finite_number("done", done),
            "total": finite_number("total", total),
            "message": None if message is None else fitted(str(message), _LONGEST_MESSAGE),
        }
        self.emit("progress", {name: value for name, value in said.items() if value is not None})

    def track(self, iterable: Iterable[Item], total: Number | None = None) -> Iterator[Item]:
        """Yield the items and emit progress: before the first, after the last, in between at most twice a second.

        An item is done when the next is asked for.  `total` is `len(iterable)` where there is one.
        """
        if total is None:
            total = _length(iterable)
        done = told = 0
        self.progress(done, total)
        due_at = self._clock() + _SECONDS_BETWEEN_PROGRESS
        for done, item in enumerate(iterable, 1):
            yield item
            if self._clock() >= due_at:
                self.progress(told := done, total)
                due_at = self._clock() + _SECONDS_BETWEEN_PROGRESS
        if told != done:
            self.progress(done, total)


class ParentChannel:
    """The one way to the parent while the job lasts, for its threads but not for processes that it forked."""

    def __init__(self, job_id: str, tell: SendToParent, interruption: Interruption) -> None:
        self._job_id = job_id
        self._tell: SendToParent | None = tell
        self._speaker: int | None = None  # the thread that sends
        self._interruption = interruption
        # Reentrant: a destructor may log while its own thread is in here.
        self._lock = threading.RLock()
        self._pid = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Whether this is a process that the handler forked."""
        return os.getpid() != self._pid

    def send(self, message: EventEmitted | Logged) -> None:
        if self.is_forked:
            # Its frames would land inside ours.
            raise RuntimeError(f"only the process that runs job {self._job_id} may use its context, not one it forked")
        # A finalizer may run in the middle of another message, wherever the garbage collector runs.
        if self._speaker == threading.get_ident():
            raise RuntimeError(f"job {self._job_id} is in the middle of another message")
        with self._interruption.deferred(), self._lock:
            if self._tell is None:
                raise RuntimeError(f"job {self._job_id} is over")
            self._speaker = threading.get_ident()
            try:
                self._tell(message)
            finally:
                self._speaker = None

    def close(self) -> None:
        """End it with the job: a thread that the job left behind sends nothing more.  Called disarmed."""
        with self._lock:
            self._tell = None


class _LogToParent(LogHandler):
    """Passes on log records; those of a job that is over are nobody's and dropped.

    A forked process has no way to the parent but what it prints.
    """

    def __init__(self, voice: ParentChannel) -> None:
        super().__init__()
        self._voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - arguments that do not fit must not fail the job
            text = f"{record.msg} {record.args!r}"
        if self._voice.is_forked:
            write_line(fitted(f"{record.levelname}: {text}"))
        else:
            with contextlib.suppress(RuntimeError):  # the job is over
                self._voice.send(Logged(record.levelno, fitted(text)))


def _length(iterable: Iterable[object]) -> int | None:
    """How many items there are, where that can be had: `len` raises for a range beyond the largest size."""
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
        raise ValueError(f"the event type {type!r} begins with 'mobius.', which is the server's own")
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
