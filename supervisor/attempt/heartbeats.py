"""The heartbeats of one attempt, by which its lease is kept.  Runs in the parent.

Most jobs end before their first heartbeat is due: the loop starts only with the first check of the lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from supervisor.attempt.lease import Lease, LeaseLost
from supervisor.concurrency.helpers import HelperTasks
from supervisor.job import Fence
from supervisor.job_server import JobServer, KeyRefused, RateLimited, RequestRejected, StaleFence, Unavailable
from supervisor.stats import Stats

MAX_SLEEP = 1.0
"""Seconds between two checks of the lease."""


class HeartbeatLoop:
    """Sends heartbeats when they are due, and ends the attempt when the lease is lost."""

    def __init__(
        self,
        fence: Fence,
        *,
        lease: Lease,
        server: JobServer,
        stats: Stats,
        beside: HelperTasks,
        on_cancel: Callable[[], None],
        on_lost: Callable[[], None],
        log: Any,
        now: Callable[[], float],
    ) -> None:
        """`on_cancel` is called if the answer to a heartbeat asks to stop the job, `on_lost` if the lease is lost."""
        self._fence = fence
        self._lease = lease
        self._server = server
        self._stats = stats
        self._helpers = beside
        self._on_cancel = on_cancel
        self._on_lost = on_lost
        self._log = log
        self._now = now
        self._asked_length = False

    async def run(self) -> None:
        """Send heartbeats until cancelled; raise `LeaseLost` when the lease is lost."""
        try:
            await self._send_when_due()
        except LeaseLost:
            self._on_lost()  # at once: the exception reaches its handler only some turns of the loop later
            raise

    async def _send_when_due(self) -> None:
        while True:
            now = self._now()
            self._lease.check(now)
            if now >= self._lease.next_beat_at:
                await self._send(now)
            else:
                # Never longer than the lease lives: silence must be noticed when it is due.  And never for long:
                # while the machine is suspended the loop's clock stands still, the lease's does not.
                wake_at = min(self._lease.next_beat_at, self._lease.expires_at)
                await asyncio.sleep(min(wake_at - now, MAX_SLEEP))

    async def _send(self, now: float) -> None:
        try:
            directive = await self._server.heartbeat(self._fence, timeout=self._lease.beat_timeout(now))
        except StaleFence as stale:
            self._record("refused", now)
            self._lease.renewal_refused(str(stale))
            self._lease.renewal_failed(self._now())
        except RateLimited as limited:
            self._record("failed", now)
            self._lease.renewal_failed(self._now(), wait=limited.retry_after)
        except (Unavailable, KeyRefused, RequestRejected) as error:
            self._record("failed", now)
            # A rejected request (400) or key (401) states as little about the lease as no answer.
            self._log.warning("heartbeat failed", error=str(error))
            self._lease.renewal_failed(self._now())
        else:
            self._record("accepted", now)
            self._lease.renewed(directive, sent_at=now)
            if self._lease.is_cancelling:
                self._on_cancel()
            elif self._lease.length_is_guessed and not self._asked_length:
                self._asked_length = True
                self._helpers.start(self._learn_lease_length)  # not here: its answer may take longer than a lease lives

    def _record(self, result: str, sent_at: float) -> None:
        """Count the heartbeat's answer.  Call it before the lease is renewed: `slack` is the time that was left."""
        self._stats.record_heartbeat(result, seconds=self._now() - sent_at, slack=self._lease.expires_at - sent_at)

    async def _learn_lease_length(self) -> None:
        """Ask how long the lease lives; a job that is over before its first beat does not cost a call more."""
        try:
            self._lease.set_length(await self._server.lease_length(self._fence))
        except (Unavailable, KeyRefused, RateLimited, StaleFence, RequestRejected):
            self._asked_length = False  # with the next beat again; a stale fence is for that one to tell


async def recheck_lease(lease: Lease, now: Callable[[], float]) -> None:
    """Look at the lease now, and when it ends; raise `LeaseLost` when it is over.

    For after a suspend: how long a heart sleeps was reckoned before it.
    """
    lease.check(now())
    await asyncio.sleep(min(lease.expires_at - now(), MAX_SLEEP))
    lease.check(now())
