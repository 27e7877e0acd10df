"""Claims of one slot: for which actions, how long, and when again.  Runs in the parent.

Tested by tests/pool/test_slot.py.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from supervisor.concurrency.backoff import Backoff
from supervisor.job import Job
from supervisor.job_server import JobServer, KeyRefused, RateLimited, RequestRejected, Unavailable
from supervisor.linux.syscalls import boottime
from supervisor.pool.claim_gate import BlockReason
from supervisor.pool.poll_limit import PollLimiter
from supervisor.pool.slot_config import SlotHost

LONG_POLL_SHARE = 0.5
"""Part of the requested wait: after an empty answer that comes sooner, the next claim backs off."""
MIN_CLAIM_INTERVAL = 0.5
"""Seconds between the starts of two empty claims, even if the requested wait is shorter."""
CLAIM_TIMEOUT_MARGIN = 60.0
"""Seconds beyond the requested wait after which a claim counts as stuck: longer than the client and a backoff take."""

UNREQUESTED_ACTION = "the server hands out jobs of actions that it was not asked for"


class Claimer:
    """Sends one claim at a time."""

    def __init__(self, server: JobServer, poll_limit: PollLimiter, host: SlotHost, log: Any) -> None:
        self.asked: tuple[str, ...] = ()
        """The actions of the open claim; empty without one."""
        self.deadline = math.inf
        """Time of the loop's clock by which the open claim must have ended; this clock stops during a suspend."""
        self.answered_at = 0.0
        """Boot time at which the last answer was read."""
        self.lease_started_at = 0.0
        """Earliest boot time at which the last job's lease began: its answer may have arrived during a suspend."""
        self._server = server
        self._poll_limit = poll_limit
        self._host = host
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff(0.2, 15.0)

    async def claim(self) -> Job | None:
        """Claim a job of any claimable action once; return None without a job, after the pause that is due.

        Without a claimable action no claim is sent, and `asked` is empty.
        """
        self.asked = self._host.claimable_actions()
        if not self.asked:
            return None
        stats = self._host.stats
        is_first = stats.answered_at is None  # no answer yet: the server may not know this worker
        # The first answer shows that the server knows this worker; a trial after a refused key is urgent, too.
        gate = self._poll_limit.gate
        asks_again = not gate.is_open and gate.is_blocked_by(BlockReason.CREDENTIAL)
        wait = 0.0 if is_first or asks_again else self._wait_for(self.asked)
        asked_at = stats.claimed_at = boottime()
        self.deadline = self._loop.time() + wait + CLAIM_TIMEOUT_MARGIN
        try:
            job = await self._server.claim(self.asked, wait=wait)
        except RateLimited as limited:
            self._pause_all(limited)
            return None
        except KeyRefused as refused:
            self._note_refusal(refused)
            return None
        except (Unavailable, RequestRejected) as error:
            await self._back_off(error)
            return None
        now = self.answered_at = boottime()
        self.lease_started_at = max(asked_at, self._host.loop_monitor.earliest_arrival(now))
        fault = None if job is None or job.action in self.asked else self._fault_of(job)
        stats.claim_answered(now, asked_at=asked_at, has_job=job is not None, fault=fault)
        if is_first:
            self._host.mark_serving()
        if job is None:
            self._poll_limit.found_nothing()
            await self._rest(now - asked_at, wait, is_first=is_first)
        elif not self._host.reserve(job):
            await self._ignore(job)
            return None
        elif fault is not None:  # the job fails at once, and the next claim comes later
            self._poll_limit.found_unrunnable(fault)
        else:
            self._poll_limit.found()
            self._backoff.reset()
        return job

    def _pause_all(self, limited: RateLimited) -> None:
        """Pause the claims of all slots, as the server requested."""
        self._host.stats.claim_failed(str(limited))
        pause = max(limited.retry_after, self._backoff.next())
        self._log.warning("claims pause: the server asks for it", seconds=round(pause, 1))
        self._poll_limit.found_nothing()
        self._poll_limit.pause(pause, "the server asks for a pause")
        self._host.mark_serving()

    def _note_refusal(self, refused: KeyRefused) -> None:
        """Log that the server refused the key; `Authorization` has blocked claims, and schedules the next trial."""
        self._host.stats.claim_failed(str(refused))
        self._log.warning("claim refused for its key", error=str(refused))
        self._poll_limit.found_nothing()

    async def _back_off(self, error: Unavailable | RequestRejected) -> None:
        """Wait after a claim that failed."""
        self._host.stats.claim_failed(str(error))
        self._poll_limit.found_nothing()
        pause = self._backoff.next()
        self._log.warning("claim failed", error=str(error), again_in=round(pause, 1))
        await asyncio.sleep(pause)

    async def _ignore(self, job: Job) -> None:
        """Drop a job that runs here already: the server could not distinguish two children with the same fence."""
        self._log.warning("ignored: the server hands out what runs here already", job_id=job.job_id)
        job.close()
        self._poll_limit.found_nothing()
        await asyncio.sleep(self._backoff.next())

    def _fault_of(self, job: Job) -> str:
        """Return why an answer with this job is wrong; log it once for a series of such answers."""
        if self._host.stats.claim_error != UNREQUESTED_ACTION:
            self._log.error(
                f"{UNREQUESTED_ACTION}: claims slow down", job_id=job.job_id, action=job.action, asked=self.asked
            )
        return UNREQUESTED_ACTION

    def _wait_for(self, actions: tuple[str, ...]) -> float:
        wait = self._host.config.wait
        is_partial = len(actions) < len(self._host.zygote.actions)
        return min(wait, self._host.partial_wait(actions)) if is_partial else wait

    async def _rest(self, taken: float, wait: float, *, is_first: bool) -> None:
        """Wait after an empty answer that took `taken` seconds."""
        if taken < LONG_POLL_SHARE * wait:
            await asyncio.sleep(self._backoff.next())
            return
        self._backoff.reset()
        if taken < MIN_CLAIM_INTERVAL and not is_first:  # a short wait is allowed, a busy loop of claims is not
            await asyncio.sleep(MIN_CLAIM_INTERVAL - taken)

    def finish(self) -> None:
        """Note that no claim is open any more."""
        self.asked = ()
        self.deadline = math.inf
