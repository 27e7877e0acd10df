"""What we ask of a job server, and what it may raise.  No I/O: `api.client` does it over HTTP.

ServerError
├── KeyRefused       401, 403             retried: see `work.authorization`
├── AuthRevoked      401, 403 for long    ends the program
├── ClaimRefused     404, 409 on a claim  ends the program
├── StaleFence       404, 409 on a job    ends the attempt
├── Rejected         400, 413, 422        our request was wrong; not retried
├── RateLimited      429                  retried after `retry_after`
└── Unavailable      5xx, or an answer    retried with backoff
    │                not from the server
    └── Unreachable  no reply             the same
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from supervisor.job import Directive, Event, Fence, Job, Outcome


class ServerError(Exception):
    """A call did not do what was asked; the subclass says what follows from it."""


class KeyRefused(ServerError):
    """401 or 403 in the server's own form: this call was refused for its key.  Callers try again as if unanswered."""


class AuthRevoked(ServerError):
    """The key stayed refused, or was never accepted.  Caught by `main`, which ends the program."""


class ClaimRefused(ServerError):
    """404 or 409 on a claim: no such project, or a server of another dialect.  Caught by `main`, which ends."""


class StaleFence(ServerError):
    """404 or 409 about a job: the attempt is not ours any more.  Caught by the attempt, which tells its lease."""


class RequestRejected(ServerError):
    """400, 413 or 422: the request itself is wrong, sending it again cannot help."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def too_large(self) -> bool:
        return self.status == 413


class RateLimited(ServerError):
    """429: nothing was done; try again after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(ServerError):
    """No answer, or none that can be used: the call may or may not have been carried out."""


class Unreachable(Unavailable):
    """No answer: the connection failed or broke, or the answer took too long."""


class JobServer(Protocol):
    """The four calls of the worker protocol; each is one request, never retried here."""

    async def claim(self, actions: Sequence[str], *, wait: float) -> Job | None:
        """One job for one of `actions`; None when none came up within `wait` seconds."""
        ...

    async def heartbeat(self, fence: Fence, *, timeout: float) -> Directive:
        """Renew the lease; `Unavailable` when no answer came within `timeout` seconds."""
        ...

    async def send_events(self, fence: Fence, events: Sequence[Event]) -> None:
        """Publish 1 to 100 events, all or none."""
        ...

    async def complete(self, fence: Fence, outcome: Outcome) -> None:
        """Report how the attempt ended."""
        ...

    async def lease_length(self, fence: Fence) -> float | None:
        """The seconds that the server lets a lease live, when it tells."""
        ...

    async def is_settled(self, fence: Fence) -> bool:
        """Whether the server has an outcome of this very attempt: resolves a report whose answer was lost."""
        ...
