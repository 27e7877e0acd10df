"""The nouns everybody shares: job, fence, event, outcome.  Pure: no I/O, no clock.

They are msgspec structs rather than dataclasses because the same objects cross the pipe to a child as msgpack.
"""

from __future__ import annotations

import enum
import os
import re

import msgspec


class Fence(msgspec.Struct, frozen=True):
    """Proves that a call is about *our* attempt; the server compares it with its own."""

    worker_id: str
    job_id: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.job_id}#{self.attempt}"


class Job(msgspec.Struct, frozen=True):
    """One claimed attempt of a job.

    `parameters` is the JSON object as it came from the server, never decoded by the parent; whoever has claimed the job
    closes them in the end.
    `heartbeat_interval` is in seconds and already sane (see `api.schema`).
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
        """Give up parameters that no child has taken over."""
        if isinstance(self.parameters, Blob):
            self.parameters.close()


class Event(msgspec.Struct, frozen=True):
    """Something a handler tells while it runs; `payload` is a compact JSON object of at most 16 KiB."""

    type: str
    payload: bytes


class Blob(msgspec.Struct):
    """Bytes too many to be held in memory: `size` of them, from `offset` on, in an unlinked file.

    Whoever holds the blob closes it; `descriptor` is negative from then on.
    """

    descriptor: int
    size: int
    offset: int = 0

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.detach())

    def detach(self) -> int:
        """The descriptor, which is the caller's now."""
        detached, self.descriptor = self.descriptor, -1
        return detached


EVENT_TYPE = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
MAX_PAYLOAD_BYTES = 16 * 1024
"""Bytes of compact UTF-8, by the protocol."""


def is_valid(event: Event) -> bool:
    """Whether the server can take the event, as far as that can be told without decoding its payload."""
    return (
        len(event.payload) <= MAX_PAYLOAD_BYTES
        and event.payload[:1] == b"{"
        and event.payload[-1:] == b"}"
        and EVENT_TYPE.fullmatch(event.type) is not None
        and not event.type.startswith("mobius.")
    )


class Succeeded(msgspec.Struct, frozen=True):
    """The handler returned.  `result` is what it returned, as base64 (RFC 4648, ASCII); None for no output."""

    result: bytes | Blob | None


class Failed(msgspec.Struct, frozen=True):
    """The attempt failed; retry policies match `error_type` exactly (protocol, section 5)."""

    error_type: str
    message: str


Outcome = Succeeded | Failed


class Directive(enum.Enum):
    """What the server wants of an attempt, told in the answer to a heartbeat."""

    CONTINUE = enum.auto()
    CANCEL = enum.auto()
