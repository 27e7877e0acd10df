"""Whether the server accepts the API key, and when a refusal ends the program.  Runs in the parent.

One refusal may be a passing fault of the server, and it must not end a fleet.  Claims are blocked, running jobs go on,
and a claim asks again with backoff.  The program ends when the key stays refused for the whole timeout.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import structlog

from supervisor.concurrency.backoff import Backoff
from supervisor.job import Directive, Event, Fence, Job, Outcome
from supervisor.job_server import AuthRevoked, JobServer, KeyRefused
from supervisor.text.duration import format_duration

FIRST_RETRY_DELAY = 0.5
"""Seconds after which the first claim asks again, at most."""
MAX_RETRY_DELAY = 15.0
"""Seconds between two claims that ask again, at most."""

CLAIM = "claim"
"""The call that decides: its acceptance clears every refusal."""

Answer = TypeVar("Answer")

log = structlog.get_logger("key")


class ClaimBlocker(Protocol):
    """What stops claims while the key is refused: the pool."""

    def block_for_key(self, reason: str, retry_in: float) -> None:
        """Open no claim but one, in `retry_in` seconds."""

    def unblock_for_key(self) -> None:
        """The server accepts the key again."""


class Authorization:
    """Which calls the server refuses for the key, and since when."""

    def __init__(self, timeout: float, *, is_known: bool = False, now: Callable[[], float] = time.monotonic) -> None:
        """`is_known`: the server has accepted the key before.  Without that, a refused claim ends the program."""
        self.timeout = timeout
        """Seconds for which the key may stay refused."""
        self.blocker: ClaimBlocker | None = None
        self.now = now
        self._is_known = is_known
        self._refused: set[str] = set()
        self._since = 0.0
        self._last_at = 0.0
        self._backoff = Backoff(FIRST_RETRY_DELAY, MAX_RETRY_DELAY)

    def accepted(self, call: str, sent_at: float) -> None:
        """Note that the server has accepted the key in a call that was sent at `sent_at`."""
        self._is_known = self._is_known or call == CLAIM
        # A long poll that was sent before the key was refused says nothing about now.
        if not self._refused or sent_at < self._last_at:
            return
        self._refused.discard(call)
        if call == CLAIM:
            self._refused.clear()
        if not self._refused:
            log.warning("key accepted again", refused_for=round(self.now() - self._since, 1))
            self._backoff.reset()
            if self.blocker is not None:
                self.blocker.unblock_for_key()

    def refused(self, call: str, error: str) -> None:
        """Note that the server refuses the key; raise `AuthRevoked` when the program is to end."""
        if not self._is_known:
            if call == CLAIM:
                raise AuthRevoked(error)
            return  # the first claim decides
        now = self._last_at = self.now()
        if not self._refused:
            self._since = now
        left = self._since + self.timeout - now
        if left <= 0:
            if not self._refused:
                raise AuthRevoked(error)
            raise AuthRevoked(f"{error}; the key stayed refused for {format_duration(round(now - self._since))}")
        if not self._refused:
            log.error("key refused: claims are blocked", call=call, error=error, ends_after=self.timeout)
        self._refused.add(call)
        if self.blocker is not None:
            reason = f"the server refuses the API key: {error}"
            self.blocker.block_for_key(reason, min(self._backoff.next(), left))


class AuthorizedServer:
    """A `JobServer` that reports to `Authorization` whether each call's key was accepted."""

    def __init__(self, server: JobServer, authorization: Authorization) -> None:
        self._server = server
        self._authorization = authorization

    # Plain functions that return a coroutine: one frame less for each step of each call.

    def claim(self, actions: Sequence[str], *, wait: float) -> Coroutine[Any, Any, Job | None]:
        return self._noted(CLAIM, self._server.claim(actions, wait=wait))

    def heartbeat(self, fence: Fence, *, timeout: float) -> Coroutine[Any, Any, Directive]:
        return self._noted("heartbeat", self._server.heartbeat(fence, timeout=timeout))

    def send_events(self, fence: Fence, events: Sequence[Event]) -> Coroutine[Any, Any, None]:
        return self._noted("events", self._server.send_events(fence, events))

    def complete(self, fence: Fence, outcome: Outcome) -> Coroutine[Any, Any, None]:
        return self._noted("complete", self._server.complete(fence, outcome))

    def lease_length(self, fence: Fence) -> Coroutine[Any, Any, float | None]:
        return self._noted("look-up", self._server.lease_length(fence))

    def is_settled(self, fence: Fence) -> Coroutine[Any, Any, bool]:
        return self._noted("look-up", self._server.is_settled(fence))

    async def _noted(self, call: str, answer: Awaitable[Answer]) -> Answer:
        sent_at = self._authorization.now()
        try:
            said = await answer
        except KeyRefused as refused:
            self._authorization.refused(call, str(refused))
            raise
        self._authorization.accepted(call, sent_at)
        return said
