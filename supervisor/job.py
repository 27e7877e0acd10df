"""Shared value types: job, fence, event, outcome.  Pure: no I/O except closing a descriptor, no clock.

They are msgspec structs, not dataclasses, because the pipe between parent and child carries them as msgpack.
"""

from __future__ import annotations

import enum
import os
import re

import msgspec


class Fence(msgspec.Struct, frozen=True):
    """Fencing token of one attempt.  The server rejects a call whose fence is not the one of the current attempt."""

    worker_id: str
    job_id: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.job_id}#{self.attempt}"


class Job(msgspec.Struct, frozen=True):
    """One claimed attempt of a job.

    `parameters` is the JSON object as the server sent it; the parent never decodes it.  The slot that claimed the job
    closes it.  `heartbeat_interval` is in seconds and within the bounds that `dialects.http.codec` sets.
    """

    job_id: str
    run_id: str
    workflow_name: str
    step_name: str
    action: str
    attempt: int
    queue: str
    parameters: bytes | Blob
    heartbeat_interval: float

    def close(self) -> None:
        """Close the file of the parameters unless a child has taken it over."""
        if isinstance(self.parameters, Blob):
            self.parameters.close()


class Event(msgspec.Struct, frozen=True):
    """A message that a handler publishes while it runs; `payload` is a compact JSON object of at most 16 KiB."""

    type: str
    payload: bytes


class Blob(msgspec.Struct):
    """A large byte string in an unlinked file instead of in memory: `size` bytes, starting at `offset`.

    The current owner of the blob closes it.  `descriptor` is negative after that.
    """

    descriptor: int
    size: int
    offset: int = 0

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.detach())

    def detach(self) -> int:
        """Return the descriptor.  The caller owns it from now on and closes it."""
        detached, self.descriptor = self.descriptor, -1
        return detached


EVENT_TYPE = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
MAX_PAYLOAD_BYTES = 16 * 1024
"""Limit of the protocol for a payload as compact UTF-8."""


def is_valid(event: Event) -> bool:
    """True if the event fits the protocol.  The payload is not decoded, so only its size and its braces are checked."""
    return (
        len(event.payload) <= MAX_PAYLOAD_BYTES
        and event.payload[:1] == b"{"
        and event.payload[-1:] == b"}"
        and EVENT_TYPE.fullmatch(event.type) is not None
        and not event.type.startswith("mobius.")
    )


class Succeeded(msgspec.Struct, frozen=True):
    """The handler returned.  `result` is the encoded return value as base64 (RFC 4648, ASCII); None for no result."""

    result: bytes | Blob | None


class Failed(msgspec.Struct, frozen=True):
    """The attempt failed; retry policies match `error_type` exactly (protocol, section 5)."""

    error_type: str
    message: str


Outcome = Succeeded | Failed


class Directive(enum.Enum):
    """The server's instruction for an attempt, from its reply to a heartbeat."""

    CONTINUE = enum.auto()
    CANCEL = enum.auto()
