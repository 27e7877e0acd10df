"""How a slot asks for jobs: for what, how long, and how soon again.  Runs in the parent."""

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
"""Part of the asked wait; an empty answer that comes sooner is no long poll, and the next claim backs off."""
MIN_CLAIM_INTERVAL = 0.5
"""Seconds from one empty claim to the next, however short the asked wait is."""
CLAIM_TIMEOUT_MARGIN = 60.0
"""Seconds beyond the asked wait after which a claim is stuck: the client has given it up, and a backoff is over."""

UNREQUESTED_ACTION = "the server hands out jobs of actions that it was not asked for"


class Claimer:
    """One claim at a time."""

    def __init__(self, server: JobServer, poll_limit: PollLimiter, host: SlotHost, log: Any) -> None:
        self.asked: tuple[str, ...] = ()
        """The actions of the claim that is open."""
        self.deadline = math.inf
        """When the claim that is open must have ended; of the loop's clock, which stands still in a suspend."""
        self.answered_at = 0.0
        """When the last answer was seen."""
        self.lease_started_at = 0.0
        """When the lease of the last job began, at the earliest: its answer may have waited for us to wake up."""
        self._server = server
        self._poll_limit = poll_limit
        self._host = host
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff(0.2, 15.0)

    async def claim(self) -> Job | None:
        """Ask for a job of any action that is open, once; None when there is none, after a pause where one is due.

        When no action is open nothing is `asked`.
        """
        self.asked = self._host.claimable_actions()
        if not self.asked:
            return None
        ledger = self._host.stats
        is_first = ledger.answered_at is None  # nobody knows us yet
        # The first answer says that the server knows us; one that ends a refusal of the key is wanted soon as well.
        gate = self._poll_limit.gate
        asks_again = not gate.is_open and gate.is_blocked_by(BlockReason.CREDENTIAL)
        wait = 0.0 if is_first or asks_again else self._wait_for(self.asked)
        asked_at = ledger.claimed_at = boottime()
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
        ledger.claim_answered(now, asked_at=asked_at, has_job=job is not None, fault=fault)
        if is_first:
            self._host.mark_serving()
        if job is None:
            self._poll_limit.found_nothing()
            await self._rest(now - asked_at, wait, is_first=is_first)
        elif not self._host.reserve(job):
            await self._ignore(job)
            return None
        elif fault is not None:  # the job is told so at once, and the next one comes later
            self._poll_limit.found_unrunnable(fault)
        else:
            self._poll_limit.found()
            self._backoff.reset()
        return job

    def _pause_all(self, limited: RateLimited) -> None:
        """The server asks for it: no slot opens a claim for a while."""
        self._host.stats.claim_failed(str(limited))
        pause = max(limited.retry_after, self._backoff.next())
        self._log.warning("claims pause: the server asks for it", seconds=round(pause, 1))
        self._poll_limit.found_nothing()
        self._poll_limit.pause(pause, "the server asks for a pause")
        self._host.mark_serving()

    def _note_refusal(self, refused: KeyRefused) -> None:
        """The key was refused: `Authorization` has blocked claims and decides when one asks again."""
        self._host.stats.claim_failed(str(refused))
        self._log.warning("claim refused for its key", error=str(refused))
        self._poll_limit.found_nothing()

    async def _back_off(self, error: Unavailable | RequestRejected) -> None:
        """It was not answered, or not as a claim is."""
        self._host.stats.claim_failed(str(error))
        self._poll_limit.found_nothing()
        pause = self._backoff.next()
        self._log.warning("claim failed", error=str(error), again_in=round(pause, 1))
        await asyncio.sleep(pause)

    async def _ignore(self, job: Job) -> None:
        """Two children with the same fence could not be told apart: what one says would count for the other."""
        self._log.warning("ignored: the server hands out what runs here already", job_id=job.job_id)
        job.close()
        self._poll_limit.found_nothing()
        await asyncio.sleep(self._backoff.next())

    def _fault_of(self, job: Job) -> str:
        """What is wrong with an answer that brings this job, which is said once for all that are like it."""
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
        """After an empty answer that has taken so long."""
        if taken < LONG_POLL_SHARE * wait:
            await asyncio.sleep(self._backoff.next())
            return
        self._backoff.reset()
        if taken < MIN_CLAIM_INTERVAL and not is_first:  # a short wait is what is asked for, a loop of claims is not
            await asyncio.sleep(MIN_CLAIM_INTERVAL - taken)

    def finish(self) -> None:
        """No claim is open any more, however it ended."""
        self.asked = ()
        self.deadline = math.inf
