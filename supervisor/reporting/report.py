"""One outcome on its way to the server: sent until it is settled, and on disk for as long as that is in doubt.

Runs in the parent.  Attempts report with it, and the replay sends what they have left behind.  It knows nothing of
leases: whoever awaits it says when to stop.  Files are written and removed in threads, for a disk may take seconds,
and the heartbeats must go on meanwhile.
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
"""Error types of what is reported in place of an outcome that the server refuses as such."""

CUT_SHORT = "its report ended before there was an answer"
"""Why an outcome is left of which the server has said nothing."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server has the outcome."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The server wants no outcome of this attempt, or none in any form."""

    why: str


@dataclass(frozen=True, slots=True)
class RetryLater:
    """It is to be sent again: after a backoff, and not before the `wait` that the server has asked for."""

    why: str
    wait: float = 0.0
    was_answered: bool = True
    """False if the server was not reached."""


Answer = Accepted | Rejected | RetryLater

_NAMES = {Accepted: "accepted", Rejected: "refused", RetryLater: "unanswered"}


def _nothing() -> None:
    """Nobody says when to stop."""


class Reporter:
    """How outcomes are reported: to which server, and where they are kept until it has them."""

    def __init__(
        self, server: JobServer, spool: Spool, destination: Destination, spool_after: float, ledger: Stats
    ) -> None:
        self.server = server
        self.stats = ledger
        self.spool = spool
        self.destination = destination
        self.spool_after = spool_after
        self.outcome_left = asyncio.Event()
        """Set when an outcome is left in the spool; cleared by the replay, which then looks."""
        self.logged_paths: set[Path] = set()
        """Files of which the log says already that they wait in the spool."""

    def report(self, fence: Fence, action: str, outcome: Outcome, log: Any) -> Report:
        """The report of an attempt that has ended."""
        return Report(self, fence, action, outcome, log)

    def report_of(self, entry: SpoolEntry, log: Any) -> Report:
        """The report of an outcome from the spool; it takes the entry over."""
        return Report(self, entry.record.fence, entry.record.action, entry.outcome, log, entry)


class Report:
    """One outcome; whoever makes it calls `end`, whatever happens."""

    _answer: Answer | None = None
    _has_ended = False
    _lock: asyncio.Lock | None = None  # of most nothing is ever on disk

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
        # What lay in the spool may have been sent, by a process that died before the answer came.
        self._was_unanswered = entry is not None

    @property
    def is_spooled(self) -> bool:
        """Whether the outcome is on disk."""
        return self._entry is not None

    @property
    def _disk(self) -> asyncio.Lock:
        """Files are written and removed on behalf of several tasks, one after the other."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    async def spool(self) -> None:
        """Have the outcome on disk until it is settled, if that can be."""
        async with self._disk:
            if self._entry is None and not self._has_ended:
                await to_thread_uncancelled(self._write)

    async def replace(self, outcome: Outcome) -> None:
        """Report this instead."""
        if outcome == self.outcome:
            return
        async with self._disk:
            if self._has_ended:
                return  # what is on disk is in other hands
            self.outcome = outcome
            if self._entry is not None:
                await to_thread_uncancelled(self._write)

    async def deliver(self, check: Callable[[], None] = _nothing) -> Accepted | Rejected:
        """Send the outcome until it is settled; raise `AuthRevoked`, and whatever `check` raises before any send."""
        check()
        answer = self._note(await self._send())
        return await self._retry(answer, check) if isinstance(answer, RetryLater) else answer

    async def _retry(self, answer: Answer, check: Callable[[], None]) -> Accepted | Rejected:
        backoff = Backoff(0.2, 5.0)
        while isinstance(answer, RetryLater):
            await self.spool()
            self._log.warning("report was not accepted, it will be sent again", error=answer.why)
            await asyncio.sleep(max(answer.wait, backoff.next()))
            check()
            answer = self._note(await self._send())
        return answer

    async def send(self) -> Answer:
        """Send the outcome once; unless that settled it, it is on disk then.  Raise `AuthRevoked`."""
        answer = self._note(await self._send())
        if isinstance(answer, RetryLater):
            await self.spool()
        return answer

    def _note(self, answer: Answer) -> Answer:
        self._answer = answer
        self._reporter.stats.reports[_NAMES[type(answer)]] += 1
        return answer

    async def end(self, *, is_ours: bool = True) -> None:
        """Nothing more is sent from here.  What is settled, or about an attempt that is not ours, leaves the disk;
        anything else stays there for the replay.  Also when it is cancelled: a file that is held is nobody else's.
        """
        is_over = not is_ours or isinstance(self._answer, Accepted | Rejected)
        if is_over and self._entry is None and self._lock is None:
            self._has_ended = True  # most jobs: settled at the first send, and never on disk
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
        except KeyRefused as refused:  # a clear no: unlike a lost answer it leaves no doubt about what the server has
            return RetryLater(str(refused), was_answered=False)
        except Unavailable as error:
            self._was_unanswered = True
            return RetryLater(str(error), was_answered=not isinstance(error, Unreachable))
        except StaleFence as stale:
            return await self._resolve_conflict(stale) if self._was_unanswered else _refused(stale)
        except RequestRejected as rejected:
            return await self._send_substitute(rejected)
        return Accepted()

    async def _resolve_conflict(self, stale: StaleFence) -> Answer:
        """A report that was sent again is refused: perhaps because the first one had arrived."""
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
        return Accepted() if is_settled else _refused(stale)

    async def _send_substitute(self, rejected: RequestRejected) -> Answer:
        """The server refuses the outcome as such: tell it that, once, and leave the outcome to the operator."""
        if isinstance(self.outcome, Failed) and self.outcome.error_type in SUBSTITUTES:
            return Rejected(f"the server refuses every report: {rejected}")
        await self.spool()
        error_type = "ResultTooLarge" if rejected.too_large else "ResultRejected"
        if self._entry is not None and await to_thread_uncancelled(self._reporter.spool.keep_copy, self._entry):
            self._log.warning("the server refuses the outcome, which is kept as undeliverable", error=str(rejected))
        else:
            self._log.error("the server refuses the outcome, which is lost: it cannot be kept", error=str(rejected))
        await self.replace(Failed(error_type, f"the server refused the report: {rejected}"))
        return await self._send()

    def _write(self) -> None:
        reporter = self._reporter
        earlier = self._entry
        self._entry = reporter.spool.write(reporter.destination, self._fence, self._action, self.outcome)
        if earlier is not None:
            # Also when the later one could not be written: the earlier one is not what is to be reported.
            earlier.remove()

    def _remove(self) -> None:
        if self._entry is not None:
            self._reporter.logged_paths.discard(self._entry.path)
            self._entry.remove()
            self._entry = None

    def _release(self) -> None:
        reason = self._answer.why if isinstance(self._answer, RetryLater) else CUT_SHORT
        if self._entry is None:
            disk = self._reporter.spool.trouble
            self._log.error(
                "the outcome is lost: neither the server nor the spool could take it", reason=reason, disk=disk
            )
            return
        if self._entry.path not in self._reporter.logged_paths:  # of all the sends that fail only the first is news
            self._reporter.logged_paths.add(self._entry.path)
            self._log.warning("the outcome waits in the spool", reason=reason)
        self._entry.close()
        self._reporter.outcome_left.set()


def _refused(stale: StaleFence) -> Rejected:
    return Rejected(f"the report was refused: {stale}")
