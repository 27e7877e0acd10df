"""Delivery of one outcome: send it until the server accepts or rejects it, and store it on disk while that is open.

Runs in the parent.  Attempts report with it, and the replay sends the outcomes that attempts left in the spool.  It
knows no leases: the caller decides when to stop.  Threads write and remove the files, because a disk may take seconds
and heartbeats must continue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.concurrency.backoff import Backoff
from supervisor.concurrency.helpers import shielded, to_thread_uncancelled
from supervisor.job import Failed, Fence, Outcome
from supervisor.job_server import (
    AuthRevoked,
    JobServer,
    KeyRefused,
    RateLimited,
    RequestRejected,
    StaleFence,
    Unavailable,
    Unreachable,
)
from supervisor.reporting.spool import Spool, SpoolEntry
from supervisor.reporting.spool_format import Destination
from supervisor.stats import Stats

SUBSTITUTES = ("ResultRejected", "ResultTooLarge")
"""Error types of the failures that replace an outcome that the server rejects."""

INTERRUPTED = "the report ended before the server replied"
"""Reason for storing an outcome without a reply from the server."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server has the outcome."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The server accepts no outcome of this attempt."""

    why: str


@dataclass(frozen=True, slots=True)
class RetryLater:
    """The outcome must be sent again after a backoff, and at the earliest after `wait` seconds (from the server)."""

    why: str
    wait: float = 0.0
    was_answered: bool = True
    """False if the server did not process the request."""


Answer = Accepted | Rejected | RetryLater

_NAMES = {Accepted: "accepted", Rejected: "refused", RetryLater: "unanswered"}


def _never_stop() -> None:
    """Let the delivery continue without a limit."""


class Reporter:
    """Shared context of all reports: the server, and the spool that stores outcomes until the server has them."""

    def __init__(
        self, server: JobServer, spool: Spool, destination: Destination, spool_after: float, stats: Stats
    ) -> None:
        self.server = server
        self.stats = stats
        self.spool = spool
        self.destination = destination
        self.spool_after = spool_after
        self.outcome_left = asyncio.Event()
        """Set when an outcome stays in the spool; the replay clears it and scans the spool."""
        self.logged_paths: set[Path] = set()
        """Files that the log already names as waiting in the spool."""

    def report(self, fence: Fence, action: str, outcome: Outcome, log: Any) -> Report:
        """Return the report of an attempt that has ended."""
        return Report(self, fence, action, outcome, log)

    def report_of(self, entry: SpoolEntry, log: Any) -> Report:
        """Return the report of a stored outcome; the report owns the entry from now on."""
        return Report(self, entry.record.fence, entry.record.action, entry.outcome, log, entry)


class Report:
    """Delivery of one outcome.  The creator always calls `end`."""

    _answer: Answer | None = None
    _has_ended = False
    _lock: asyncio.Lock | None = None  # created lazily: most outcomes are never stored

    def __init__(
        self,
        reporter: Reporter,
        fence: Fence,
        action: str,
        outcome: Outcome,
        log: Any,
        entry: SpoolEntry | None = None,
    ) -> None:
        self.outcome = outcome
        self._reporter = reporter
        self._fence = fence
        self._action = action
        self._log = log
        self._entry = entry
        # An earlier process may have sent a stored outcome and died before the reply.
        self._was_unanswered = entry is not None

    @property
    def is_spooled(self) -> bool:
        """True if the outcome is on disk."""
        return self._entry is not None

    @property
    def _disk(self) -> asyncio.Lock:
        """Lock that serializes the file operations of several tasks."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    async def spool(self) -> None:
        """Store the outcome on disk until the server accepts or rejects it.  A disk error is logged by the spool."""
        async with self._disk:
            if self._entry is None and not self._has_ended:
                await to_thread_uncancelled(self._write)

    async def replace(self, outcome: Outcome) -> None:
        """Report `outcome` instead of the current one."""
        if outcome == self.outcome:
            return
        async with self._disk:
            if self._has_ended:
                return  # the replay or another process may already have the file
            self.outcome = outcome
            if self._entry is not None:
                await to_thread_uncancelled(self._write)

    async def deliver(self, check: Callable[[], None] = _never_stop) -> Accepted | Rejected:
        """Send the outcome until it is accepted or rejected.

        Raise `AuthRevoked`.  `check` is called before each send and may raise to stop the delivery.
        """
        check()
        answer = self._record(await self._send())
        return await self._retry(answer, check) if isinstance(answer, RetryLater) else answer

    async def _retry(self, answer: Answer, check: Callable[[], None]) -> Accepted | Rejected:
        backoff = Backoff(0.2, 5.0)
        while isinstance(answer, RetryLater):
            await self.spool()
            self._log.warning("report not accepted and will be retried", error=answer.why)
            await asyncio.sleep(max(answer.wait, backoff.next()))
            check()
            answer = self._record(await self._send())
        return answer

    async def send(self) -> Answer:
        """Send the outcome once, and store it on disk if the server must get it again.  Raise `AuthRevoked`."""
        answer = self._record(await self._send())
        if isinstance(answer, RetryLater):
            await self.spool()
        return answer

    def _record(self, answer: Answer) -> Answer:
        self._answer = answer
        self._reporter.stats.reports[_NAMES[type(answer)]] += 1
        return answer

    async def end(self, *, is_ours: bool = True) -> None:
        """Stop sending.  Remove the file of an accepted or rejected outcome, and of an attempt this worker has lost.

        Any other outcome stays on disk for the replay.  Runs to the end when cancelled, because a file that stays
        locked is available to no other process.
        """
        is_over = not is_ours or isinstance(self._answer, Accepted | Rejected)
        if is_over and self._entry is None and self._lock is None:
            self._has_ended = True  # most jobs: accepted at the first send, never on disk
        else:
            await shielded(self._end(is_over=is_over))

    async def _end(self, *, is_over: bool) -> None:
        if not is_over:
            await self.spool()
        async with self._disk:
            self._has_ended = True
            if is_over:
                await to_thread_uncancelled(self._remove)
            else:
                self._release()

    async def _send(self) -> Answer:
        try:
            await self._reporter.server.complete(self._fence, self.outcome)
        except AuthRevoked as revoked:
            self._answer = RetryLater(str(revoked))
            raise
        except RateLimited as limited:
            return RetryLater(str(limited), limited.retry_after)
        except KeyRefused as refused:  # unlike a lost reply: the server certainly did not process it
            return RetryLater(str(refused), was_answered=False)
        except Unavailable as error:
            self._was_unanswered = True
            return RetryLater(str(error), was_answered=not isinstance(error, Unreachable))
        except StaleFence as stale:
            return await self._resolve_conflict(stale) if self._was_unanswered else _rejected(stale)
        except RequestRejected as rejected:
            return await self._send_substitute(rejected)
        return Accepted()

    async def _resolve_conflict(self, stale: StaleFence) -> Answer:
        """Ask the server whether a report that was sent again is stale because the first report had arrived."""
        try:
            is_settled = await self._reporter.server.is_settled(self._fence)
        except (StaleFence, RequestRejected):
            is_settled = False
        except RateLimited as limited:
            return RetryLater(str(limited), limited.retry_after)
        except KeyRefused as refused:
            return RetryLater(str(refused), was_answered=False)
        except Unavailable as error:
            return RetryLater(str(error), was_answered=not isinstance(error, Unreachable))
        return Accepted() if is_settled else _rejected(stale)

    async def _send_substitute(self, rejected: RequestRejected) -> Answer:
        """Report a failure in place of a rejected outcome, and keep the outcome for the operator."""
        if isinstance(self.outcome, Failed) and self.outcome.error_type in SUBSTITUTES:
            return Rejected(f"the server rejects every report: {rejected}")
        await self.spool()
        error_type = "ResultTooLarge" if rejected.too_large else "ResultRejected"
        if self._entry is not None and await to_thread_uncancelled(self._reporter.spool.keep_copy, self._entry):
            self._log.warning("outcome rejected by the server and kept as undeliverable", error=str(rejected))
        else:
            self._log.error("outcome rejected by the server and lost", error=str(rejected))
        await self.replace(Failed(error_type, f"the server rejected the report: {rejected}"))
        return await self._send()

    def _write(self) -> None:
        reporter = self._reporter
        earlier = self._entry
        self._entry = reporter.spool.write(reporter.destination, self._fence, self._action, self.outcome)
        if earlier is not None:
            # Remove it even when the new file could not be written: the earlier outcome must not be reported.
            earlier.remove()

    def _remove(self) -> None:
        if self._entry is not None:
            self._reporter.logged_paths.discard(self._entry.path)
            self._entry.remove()
            self._entry = None

    def _release(self) -> None:
        reason = self._answer.why if isinstance(self._answer, RetryLater) else INTERRUPTED
        if self._entry is None:
            disk = self._reporter.spool.trouble
            self._log.error("outcome lost because server and spool are unavailable", reason=reason, disk=disk)
            return
        if self._entry.path not in self._reporter.logged_paths:  # log only the first failed send
            self._reporter.logged_paths.add(self._entry.path)
            self._log.warning("outcome stored in the spool", reason=reason)
        self._entry.close()
        self._reporter.outcome_left.set()


def _rejected(stale: StaleFence) -> Rejected:
    return Rejected(f"the report was rejected: {stale}")
