"""The interface of a job server and the errors of its calls.  No I/O: `dialects.http.client` implements it over HTTP.

ServerError
├── KeyRefused       401, 403             retried: see `pool.authorization`
├── AuthRevoked      401, 403 repeatedly  ends the program
├── ClaimRefused     404, 409 on a claim  ends the program
├── StaleFence       404, 409 on a job    ends the attempt
├── RequestRejected  400, 413, 422        the request is invalid; not retried
├── RateLimited      429                  retried after `retry_after`
└── Unavailable      5xx, or a reply      retried with backoff
    │                of another program
    └── Unreachable  no reply             retried with backoff
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from supervisor.job import Directive, Event, Fence, Job, Outcome


class ServerError(Exception):
    """A call failed; the subclass determines whether the caller retries."""


class KeyRefused(ServerError):
    """401 or 403 in the server's own error format: the key was refused.  Callers retry as after a missing reply."""


class AuthRevoked(ServerError):
    """The server refused the key for too long, or never accepted it.  Caught by `main`, which ends the program."""


class ClaimRefused(ServerError):
    """404 or 409 on a claim: the project is unknown, or the server speaks another dialect.  Ends the program."""


class StaleFence(ServerError):
    """404 or 409 about a job: this worker no longer owns the attempt.  Caught by the attempt, which ends its lease."""


class RequestRejected(ServerError):
    """400, 413 or 422: the request itself is invalid, so a retry cannot succeed."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def too_large(self) -> bool:
        return self.status == 413


class RateLimited(ServerError):
    """429: the server did not process the request; retry after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(ServerError):
    """No usable reply: the server may or may not have processed the call."""


class Unreachable(Unavailable):
    """No reply: the connection failed or broke, or the reply timed out."""


class JobServer(Protocol):
    """The calls of the worker protocol.  Each call is one request; the callers retry."""

    async def claim(self, actions: Sequence[str], *, wait: float) -> Job | None:
        """Claim one job for one of `actions`; return None when there was none within `wait` seconds."""
        ...

    async def heartbeat(self, fence: Fence, *, timeout: float) -> Directive:
        """Renew the lease; raise `Unavailable` when there is no reply within `timeout` seconds."""
        ...

    async def send_events(self, fence: Fence, events: Sequence[Event]) -> None:
        """Publish 1 to 100 events.  The server accepts all or none."""
        ...

    async def complete(self, fence: Fence, outcome: Outcome) -> None:
        """Report the outcome of the attempt."""
        ...

    async def lease_length(self, fence: Fence) -> float | None:
        """Return the length of the lease in seconds; None when the server does not state it."""
        ...

    async def is_settled(self, fence: Fence) -> bool:
        """Return True if the server has an outcome of this attempt.  Resolves a report whose reply was lost."""
        ...
