"""The outcome to report for an attempt: one decision, made once.  Pure.

The child tells what happened to it, if it still can; the attempt knows why it was stopped, if it was.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from supervisor.job import Failed, Outcome, Succeeded
from supervisor.linux.exit_status import ExitReport, OomKill
from supervisor.text.duration import format_duration
from supervisor.text.size import format_size

MAX_MESSAGE_BYTES = 8 * 1024
"""Limit for an error message, in bytes."""


class OutcomeLabel(enum.StrEnum):
    """The end of a job in one word, for metrics and `status`."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CRASHED = "crashed"
    SHUTDOWN = "shutdown"
    LEASE_LOST = "lease_lost"


@dataclass(frozen=True, slots=True)
class StopReason:
    """The reason to stop a job, with the error to report."""

    error_type: str
    message: str
    label: OutcomeLabel

    @property
    def is_cancel(self) -> bool:
        """True if the server or an operator cancelled the job: a later result does not count."""
        return self.label is OutcomeLabel.CANCELLED


CANCELLED = StopReason("Cancelled", "the server asked to stop the job", OutcomeLabel.CANCELLED)
SHUTDOWN = StopReason("WorkerShutdown", "the worker was shut down before the job was done", OutcomeLabel.SHUTDOWN)
NOT_BEGUN = Failed("Cancelled", "it was stopped before it had begun")
"""The outcome of a job that was stopped before a child got it."""


def cancelled_by(whom: str) -> StopReason:
    """Return the reason for an operator's cancel."""
    return StopReason("Cancelled", f"cancelled by {whom}", OutcomeLabel.CANCELLED)


def timed_out(limit: float) -> StopReason:
    """Return the reason for a handler that ran longer than `limit` seconds."""
    message = f"the handler ran longer than its timeout of {format_duration(limit)}"
    return StopReason("Timeout", message, OutcomeLabel.TIMEOUT)


def over_memory(used: int, limit: int) -> StopReason:
    """Return the reason for a job that, with its descendants, uses more than `limit` bytes."""
    message = f"the job used {format_size(used)} of memory, its limit is {format_size(limit)}"
    return StopReason("MemoryLimit", message, OutcomeLabel.MEMORY)


def label_for(
    reported: Outcome, *, stop: StopReason | None, ending: ExitReport | None, has_crashed: bool
) -> OutcomeLabel:
    """Return the label for a reported outcome."""
    if isinstance(reported, Succeeded):
        return OutcomeLabel.COMPLETED
    if stop is not None and reported.error_type == stop.error_type:
        return stop.label
    if ending is not None and ending.oom_kill is not None:
        return OutcomeLabel.MEMORY
    return OutcomeLabel.CRASHED if has_crashed else OutcomeLabel.FAILED


def decide(told: Outcome | None, *, stop: StopReason | None, ending: ExitReport | None) -> Outcome:
    """What is reported, given what the child told (None: it died before), why it was stopped, and how it ended.

    After a cancel nothing else is ever reported.  After a stop of our own, a handler that still succeeded has
    succeeded; any other end is the stop's.
    """
    if stop is not None and (stop.is_cancel or not isinstance(told, Succeeded)):
        return _stopped(stop, told, ending)
    if told is None:
        assert ending is not None
        if ending.oom_kill is not None:
            return _out_of_memory(ending.oom_kill, ending)
        return Failed("ChildDied", clipped(f"the process {ending.reason} ({ending.figures}){ending.details}"))
    return told


def _out_of_memory(starvation: OomKill, ending: ExitReport) -> Failed:
    peak = "unknown" if starvation.peak is None else format_size(starvation.peak)
    if starvation.limit is not None:
        used = f"the job used more than its limit of {format_size(starvation.limit)} (peak {peak})"
        return Failed("MemoryLimit", clipped(f"{used}: killed by the kernel{ending.details}"))
    why = "the host, or the unit of the supervisor, ran out of memory"
    return Failed("OutOfMemory", clipped(f"{why}: the kernel killed the job (peak {peak}){ending.details}"))


def _stopped(stop: StopReason, told: Outcome | None, ending: ExitReport | None) -> Failed:
    if told is NOT_BEGUN:
        how = "it had not begun"
    elif isinstance(told, Failed) and told.error_type != "Cancelled":
        how = f"its cleanup failed with {told.error_type}: {told.message}"
    else:
        how = "it did not stop within its grace and was killed" if told is None else "it stopped when it was asked to"
    left = f" ({ending.figures}){ending.details}" if ending else ""
    return Failed(stop.error_type, clipped(f"{stop.message}; {how}{left}"))


def clipped(message: str) -> str:
    """Return `message`, cut in the middle to fit the limit."""
    encoded = message.encode("utf-8", "backslashreplace")
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return encoded.decode()
    half = MAX_MESSAGE_BYTES // 2 - 8
    return (encoded[:half] + b"\n[...]\n" + encoded[-half:]).decode("utf-8", "ignore")
