"""What is reported of an attempt: one decision, made once.  Pure.

The child tells what happened to it; the lease knows whether the server asked to stop; the attempt knows whether we did.
"""

from __future__ import annotations

import enum

from supervisor.job import Failed, Outcome, Succeeded
from supervisor.process.exit import Exit

MESSAGE_LIMIT = 8 * 1024
"""Bytes of an error message."""


class Stop(enum.Enum):
    """Why we stop a job that the server did not ask us to stop: the error type, and what is said of it."""

    TIMEOUT = ("Timeout", "the handler ran longer than its timeout")
    SHUTDOWN = ("WorkerShutdown", "the worker was shut down before the job was done")

    @property
    def error_type(self) -> str:
        return self.value[0]

    @property
    def message(self) -> str:
        return self.value[1]


CANCELLED = Failed("Cancelled", "the server asked to stop the job")


def decide(told: Outcome, *, cancelled: bool, stop: Stop | None) -> Outcome:
    """What is reported, given what the child told.

    After a cancel nothing else is ever reported.  After a stop of our own, a handler that still succeeded has
    succeeded; any other end is the stop's.
    """
    if cancelled:
        return CANCELLED
    if stop is not None and not isinstance(told, Succeeded):
        detail = "" if told.error_type in ("Cancelled", "ChildDied") else f"; its cleanup failed: {told.message}"
        return Failed(stop.error_type, clipped(stop.message + detail))
    return told


def child_died(reason: str, how: Exit, last_lines: list[str]) -> Failed:
    """The outcome of a job whose child ended before it told any."""
    figures = f"peak memory {how.peak_memory / 2**20:.0f} MiB, {how.cpu:.2f} s of CPU"
    printed = "\n".join(["", "last output:", *last_lines]) if last_lines else ""
    return Failed("ChildDied", clipped(f"the process {reason} ({figures}){printed}"))


def clipped(message: str) -> str:
    """`message`, cut in the middle to fit the limit."""
    encoded = message.encode("utf-8", "backslashreplace")
    if len(encoded) <= MESSAGE_LIMIT:
        return encoded.decode()
    half = MESSAGE_LIMIT // 2 - 8
    return (encoded[:half] + b"\n[...]\n" + encoded[-half:]).decode("utf-8", "ignore")
