"""The heartbeats of one attempt, by which its lease is kept.  Runs in the parent.

Most jobs are over before their first beat is due: an attempt has a heart only from when somebody looks at its lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from supervisor.job import Fence
from supervisor.stats import Ledger
from supervisor.job_server import JobServer, KeyRefused, RateLimited, Rejected, StaleFence, Unavailable
from supervisor.concurrency.helpers import Alongside
from supervisor.attempt.lease import Lease, LeaseLost

LONGEST_SLEEP = 1.0
"""Seconds between two looks at the lease."""


class Heart:
    """Beats as often as the lease wants it, and notices when the lease is over."""

    def __init__(
        self,
        fence: Fence,
        *,
        lease: Lease,
        server: JobServer,
        ledger: Ledger,
        beside: Alongside,
        on_cancel: Callable[[], None],
        on_lost: Callable[[], None],
        log: Any,
        now: Callable[[], float],
    ) -> None:
        """`on_cancel` is called when the answer to a beat asks to stop the job, `on_lost` when the lease is lost."""
        self._fence = fence
        self._lease = lease
        self._server = server
        self._ledger = ledger
        self._beside = beside
        self._on_cancel = on_cancel
        self._on_lost = on_lost
        self._log = log
        self._now = now
        self._asked_length = False

    async def keep_lease(self) -> None:
        """Beat until cancelled; raise `LeaseLost` when the lease is lost."""
        try:
            await self._beat_on()
        except LeaseLost:
            self._on_lost()  # until whoever catches this gets to know of it, the loop turns several times
            raise

    async def _beat_on(self) -> None:
        while True:
            now = self._now()
            self._lease.check(now)
            if now >= self._lease.next_beat_at:
                await self._beat(now)
            else:
                # Never longer than the lease lives: silence must be noticed when it is due.  And never for long:
                # while the machine is suspended the loop's clock stands still, the lease's does not.
                wake_at = min(self._lease.next_beat_at, self._lease.expires_at)
                await asyncio.sleep(min(wake_at - now, LONGEST_SLEEP))

    async def _beat(self, now: float) -> None:
        try:
            directive = await self._server.heartbeat(self._fence, timeout=self._lease.beat_timeout(now))
        except StaleFence as stale:
            self._note("refused", now)
            self._lease.refused(str(stale))
            self._lease.unanswered(self._now())
        except RateLimited as limited:
            self._note("failed", now)
            self._lease.unanswered(self._now(), wait=limited.retry_after)
        except (Unavailable, KeyRefused, Rejected) as error:
            self._note("failed", now)
            # A refusal of the request (400) or of the key (401) says as little about the lease as no answer.
            self._log.warning("heartbeat failed", error=str(error))
            self._lease.unanswered(self._now())
        else:
            self._note("accepted", now)
            self._lease.answered(directive, sent_at=now)
            if self._lease.is_cancelling:
                self._on_cancel()
            elif self._lease.length_is_guessed and not self._asked_length:
                self._asked_length = True
                self._beside.start(self._learn_lease_length)  # not here: its answer may take longer than a lease lives

    def _note(self, result: str, sent_at: float) -> None:
        """Before the lease is told, for `slack` is what was left of it when the beat was sent."""
        self._ledger.beat(result, seconds=self._now() - sent_at, slack=self._lease.expires_at - sent_at)

    async def _learn_lease_length(self) -> None:
        """Ask how long the lease lives; a job that is over before its first beat does not cost a call more."""
        try:
            self._lease.learn(await self._server.lease_length(self._fence))
        except (Unavailable, KeyRefused, RateLimited, StaleFence, Rejected):
            self._asked_length = False  # with the next beat again; a stale fence is for that one to tell


async def look_twice(lease: Lease, now: Callable[[], float]) -> None:
    """Look at the lease now, and when it ends; raise `LeaseLost` when it is over.

    For after a suspend: how long a heart sleeps was reckoned before it.
    """
    lease.check(now())
    await asyncio.sleep(min(lease.expires_at - now(), LONGEST_SLEEP))
    lease.check(now())
