"""How a slot asks for jobs: for what, how long, and how soon again.  Runs in the parent."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from supervisor.job import Job
from supervisor.linux.syscalls import boottime
from supervisor.job_server import JobServer, KeyRefused, RateLimited, Rejected, Unavailable
from supervisor.concurrency.backoff import Backoff
from supervisor.pool.claim_gate import Bar
from supervisor.pool.poll_limit import Polls
from supervisor.pool.slot_config import Surroundings

QUICK = 0.5
"""Part of the asked wait; an empty answer that comes sooner is no long poll, and the next claim backs off."""
SHORTEST_ROUND = 0.5
"""Seconds from one empty claim to the next, however short the asked wait is."""
CLAIM_PATIENCE = 60.0
"""Seconds beyond the asked wait after which a claim is stuck: the client has given it up, and a backoff is over."""

UNASKED = "the server hands out jobs of actions that it was not asked for"


class Claiming:
    """One claim at a time."""

    def __init__(self, server: JobServer, polls: Polls, around: Surroundings, log: Any) -> None:
        self.asked: tuple[str, ...] = ()
        """The actions of the claim that is open."""
        self.due_at = math.inf
        """When the claim that is open must have ended; of the loop's clock, which stands still in a suspend."""
        self.answered_at = 0.0
        """When the last answer was seen."""
        self.granted_at = 0.0
        """When the lease of the last job began, at the earliest: its answer may have waited for us to wake up."""
        self._server = server
        self._polls = polls
        self._around = around
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff(0.2, 15.0)

    async def claim(self) -> Job | None:
        """Ask for a job of any action that is open, once; None when there is none, after a pause where one is due.

        When no action is open nothing is `asked`.
        """
        self.asked = self._around.open_actions()
        if not self.asked:
            return None
        ledger = self._around.ledger
        is_first = ledger.answered_at is None  # nobody knows us yet
        # The first answer says that the server knows us; one that ends a refusal of the key is wanted soon as well.
        gate = self._polls.gate
        asks_again = not gate.is_open and gate.has(Bar.CREDENTIAL)
        wait = 0.0 if is_first or asks_again else self._wait_for(self.asked)
        asked_at = ledger.claimed_at = boottime()
        self.due_at = self._loop.time() + wait + CLAIM_PATIENCE
        try:
            job = await self._server.claim(self.asked, wait=wait)
        except RateLimited as limited:
            self._pause_all(limited)
            return None
        except KeyRefused as refused:
            self._note_refusal(refused)
            return None
        except (Unavailable, Rejected) as error:
            await self._back_off(error)
            return None
        now = self.answered_at = boottime()
        self.granted_at = max(asked_at, self._around.pulse.earliest(now))
        fault = None if job is None or job.action in self.asked else self._fault_of(job)
        ledger.claim_answered(now, asked_at=asked_at, has_job=job is not None, fault=fault)
        if is_first:
            self._around.answered()
        if job is None:
            self._polls.found_nothing()
            await self._rest(now - asked_at, wait, is_first=is_first)
        elif not self._around.take(job):
            await self._ignore(job)
            return None
        elif fault is not None:  # the job is told so at once, and the next one comes later
            self._polls.found_useless(fault)
        else:
            self._polls.found()
            self._backoff.reset()
        return job

    def _pause_all(self, limited: RateLimited) -> None:
        """The server asks for it: no slot opens a claim for a while."""
        self._around.ledger.claim_failed(str(limited))
        pause = max(limited.retry_after, self._backoff.next())
        self._log.warning("claims pause: the server asks for it", seconds=round(pause, 1))
        self._polls.found_nothing()
        self._polls.pause(pause, "the server asks for a pause")
        self._around.answered()

    def _note_refusal(self, refused: KeyRefused) -> None:
        """The key was refused: `Authorization` has blocked claims and decides when one asks again."""
        self._around.ledger.claim_failed(str(refused))
        self._log.warning("claim refused for its key", error=str(refused))
        self._polls.found_nothing()

    async def _back_off(self, error: Unavailable | Rejected) -> None:
        """It was not answered, or not as a claim is."""
        self._around.ledger.claim_failed(str(error))
        self._polls.found_nothing()
        pause = self._backoff.next()
        self._log.warning("claim failed", error=str(error), again_in=round(pause, 1))
        await asyncio.sleep(pause)

    async def _ignore(self, job: Job) -> None:
        """Two children with the same fence could not be told apart: what one says would count for the other."""
        self._log.warning("ignored: the server hands out what runs here already", job_id=job.job_id)
        job.close()
        self._polls.found_nothing()
        await asyncio.sleep(self._backoff.next())

    def _fault_of(self, job: Job) -> str:
        """What is wrong with an answer that brings this job, which is said once for all that are like it."""
        if self._around.ledger.claim_error != UNASKED:
            self._log.error(f"{UNASKED}: claims slow down", job_id=job.job_id, action=job.action, asked=self.asked)
        return UNASKED

    def _wait_for(self, actions: tuple[str, ...]) -> float:
        wait = self._around.rules.wait
        is_partial = len(actions) < len(self._around.zygote.actions)
        return min(wait, self._around.partial_wait(actions)) if is_partial else wait

    async def _rest(self, taken: float, wait: float, *, is_first: bool) -> None:
        """After an empty answer that has taken so long."""
        if taken < QUICK * wait:
            await asyncio.sleep(self._backoff.next())
            return
        self._backoff.reset()
        if taken < SHORTEST_ROUND and not is_first:  # a short wait is what is asked for, a loop of claims is not
            await asyncio.sleep(SHORTEST_ROUND - taken)

    def over(self) -> None:
        """No claim is open any more, however it ended."""
        self.asked = ()
        self.due_at = math.inf
