"""How a slot asks for jobs: for what, how long, and how soon again.  Runs in the parent."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from supervisor.backoff import Backoff
from supervisor.job import Job
from supervisor.polling import Polls
from supervisor.process.kernel import boottime
from supervisor.server import JobServer, RateLimited, Rejected, Unavailable
from supervisor.surroundings import Surroundings

QUICK = 0.5
"""Part of the asked wait; an empty answer that comes sooner is no long poll, and the next claim backs off."""
PARTIAL_WAIT = 1.0
"""Seconds that a claim waits when it leaves out actions that are full: they are to be asked for soon after."""
CLAIM_PATIENCE = 60.0
"""Seconds beyond the asked wait after which a claim is stuck: the client has given it up, and a backoff is over."""


class Claiming:
    """One claim at a time."""

    def __init__(self, server: JobServer, polls: Polls, around: Surroundings, log: Any) -> None:
        self.asked: tuple[str, ...] = ()
        """The actions of the claim that is open."""
        self.due_at = math.inf
        """When the claim that is open must have ended; of the loop's clock, which stands still in a suspend."""
        self._server = server
        self._polls = polls
        self._around = around
        self._log = log
        self._backoff = Backoff(0.2, 15.0)

    async def claim(self) -> Job | None:
        """Ask for a job of any action that is open, once; None when there is none, after a pause where one is due."""
        self.asked = self._around.open_actions()
        if not self.asked:
            await self._around.job_over()
            return None
        is_partial = len(self.asked) < len(self._around.zygote.actions)
        wait = min(self._around.rules.wait, PARTIAL_WAIT if is_partial else math.inf) if self._around.is_known else 0.0
        ledger = self._around.ledger
        asked_at = ledger.claimed_at = boottime()
        self.due_at = asyncio.get_running_loop().time() + wait + CLAIM_PATIENCE
        try:
            job = await self._server.claim(self.asked, wait=wait)
        except RateLimited as limited:
            ledger.claim_failed(str(limited))
            self._log.warning("claims pause: the server asks for it", seconds=limited.retry_after)
            self._polls.found_nothing()
            self._polls.pause(limited.retry_after)
            self._around.answered()
            return None
        except (Unavailable, Rejected) as error:
            ledger.claim_failed(str(error))
            self._polls.found_nothing()
            pause = self._backoff.next()
            self._log.warning("claim failed", error=str(error), again_in=round(pause, 1))
            await asyncio.sleep(pause)
            return None
        ledger.claim_answered(boottime(), asked_at=asked_at, has_job=job is not None)
        self._around.answered()
        if job is not None and not self._around.take(job):
            # Two children with the same fence could not be told apart: what one says would count for the other.
            self._log.warning("ignored: the server hands out what runs here already", job_id=job.job_id)
            job.close()
            await self._found_nothing(is_quick=True)
            return None
        if job is not None:
            self._polls.found()
            self._backoff.reset()
        else:
            await self._found_nothing(is_quick=boottime() - asked_at < QUICK * wait)
        return job

    async def _found_nothing(self, *, is_quick: bool) -> None:
        self._polls.found_nothing()
        if is_quick:
            await asyncio.sleep(self._backoff.next())
        else:
            self._backoff.reset()

    def over(self) -> None:
        """No claim is open any more, however it ended."""
        self.asked = ()
        self.due_at = math.inf
