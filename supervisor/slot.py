"""Room for one job at a time: claim, attempt, again, with one warm child.

Runs in the parent.  A slot holds a child that can run a job before it claims one, and replaces it when it is dead,
spent, or of an old zygote.  A bug in one turn ends neither this slot nor the others.
"""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from supervisor.attempt import Attempt, Limits
from supervisor.backoff import Backoff
from supervisor.job import Failed, Fence, Job
from supervisor.lease import Lease, LeaseLost, Terms
from supervisor.outcome import Stop
from supervisor.polling import Polls
from supervisor.process.child import Child
from supervisor.process.family import Family
from supervisor.process.kernel import boottime
from supervisor.process.messages import HandlerInfo
from supervisor.process.zygote import StartFailed, Zygote
from supervisor.server import AuthRevoked, ClaimRefused, JobServer, RateLimited, Rejected, ServerError, Unavailable

DRAIN_POLL = 0.5
"""Seconds that an open poll gets to come back by itself when draining: on a busy queue it does, with a job."""
QUICK = 0.5
"""Part of the asked wait; an empty answer that comes sooner is no long poll, and the next claim backs off."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings a slot goes by; lengths in seconds, None for what the server or the handler says."""

    worker_id: str
    wait: float
    cancel_grace: float
    lease_ttl: float | None
    max_heartbeat_interval: float | None
    scratch: Path


class Surroundings(Protocol):
    """What a slot asks of its pool."""

    @property
    def zygote(self) -> Zygote:
        """The current one."""

    def answered(self) -> None:
        """A claim was answered: the server knows us."""

    @property
    def is_known(self) -> bool:
        """Whether any claim was answered yet."""


class Slot:
    """One of the places where jobs run."""

    def __init__(
        self, number: int, *, rules: Rules, server: JobServer, polls: Polls, family: Family, around: Surroundings
    ) -> None:
        self.number = number
        self._rules = rules
        self._server = server
        self._polls = polls
        self._family = family
        self._around = around
        self._child: Child | None = None
        self._attempt: Attempt | None = None
        self._draining = False
        # Whatever a slot does between two jobs can be cut short by a drain.
        self._between_jobs: asyncio.Timeout | None = None
        self._claim_backoff = Backoff(0.2, 15.0)
        self._start_backoff = Backoff(0.1, 30.0)
        self.jobs_cut = 0
        self._log = structlog.get_logger("slot").bind(slot=number)

    def __repr__(self) -> str:
        pid = self._child.pid if self._child else None
        return f"<Slot {self.number} {f'busy {self._attempt.job.job_id}' if self._attempt else 'free'} pid {pid}>"

    @property
    def attempt(self) -> Attempt | None:
        """What runs here now."""
        return self._attempt

    async def run(self) -> None:
        """Run jobs until drained; when this returns the slot's child is gone."""
        try:
            while not self._draining:
                job = await self._next_job()
                if job is not None:
                    await self._work(job)
        finally:
            await self._discard_child()

    def drain(self) -> None:
        """Claim nothing new; a job that runs goes on."""
        if not self._draining:
            self._end_poll_in(DRAIN_POLL)
        self._draining = True

    def stop(self, why: Stop) -> None:
        """Drain at once, and have the running job stopped."""
        self._draining = True
        self._end_poll_in(0.0)
        if self._attempt is not None:
            self._attempt.stop(why)

    def _end_poll_in(self, seconds: float) -> None:
        if self._between_jobs is not None and not self._between_jobs.expired():
            self._between_jobs.reschedule(asyncio.get_running_loop().time() + seconds)

    async def _next_job(self) -> Job | None:
        """Wait for a job with a child that can run it; None when there is none yet, or the slot is drained."""
        try:
            async with asyncio.timeout(None) as self._between_jobs:
                await self._warm_child()
                async with self._polls.turn():
                    # Draining meanwhile: a turn that was waited for is not taken.
                    return None if self._draining else await self._claim()
        except TimeoutError:
            return None
        finally:
            self._between_jobs = None

    async def _warm_child(self) -> Child:
        """A child of the current zygote that waits for a job."""
        while self._child is None or not self._child.is_idle or self._child.zygote is not self._around.zygote:
            await self._discard_child()
            try:
                self._child = await Child.start(self._around.zygote, self._family)
            except StartFailed as failed:
                wait = self._start_backoff.next()
                self._log.error("no child", error=str(failed), again_in=round(wait, 1))
                await asyncio.sleep(wait)
            else:
                self._start_backoff.reset()
        return self._child

    async def _claim(self) -> Job | None:
        wait = self._rules.wait if self._around.is_known else 0.0
        asked_at = boottime()
        try:
            job = await self._server.claim(self._actions(), wait=wait)
        except RateLimited as limited:
            self._log.warning("claims pause: the server asks for it", seconds=limited.retry_after)
            self._polls.found_nothing()
            self._polls.pause(limited.retry_after)
            return None
        except (Unavailable, Rejected) as error:
            self._polls.found_nothing()
            pause = self._claim_backoff.next()
            self._log.warning("claim failed", error=str(error), again_in=round(pause, 1))
            await asyncio.sleep(pause)
            return None
        self._around.answered()
        if job is not None:
            self._polls.found()
            self._claim_backoff.reset()
            return job
        self._polls.found_nothing()
        if boottime() - asked_at < QUICK * wait:
            await asyncio.sleep(self._claim_backoff.next())
        else:
            self._claim_backoff.reset()
        return None

    def _actions(self) -> Sequence[str]:
        return [handler.action for handler in self._around.zygote.imported.handlers]

    async def _work(self, job: Job) -> None:
        log = self._log.bind(job_id=job.job_id, run_id=job.run_id, action=job.action, attempt=job.attempt)
        claimed_at = boottime()
        child = await self._warm_child()  # it may have died while we waited for the job
        log = log.bind(pid=child.pid)
        log.info("claimed")
        attempt = self._attempt = self._new_attempt(job, child, claimed_at, log)
        try:
            await attempt.run()
        except* LeaseLost as lost:
            log.warning("lease lost: killed, nothing is reported", reason=str(lost.exceptions[0]))
            await self._discard_child()
        except* (AuthRevoked, ClaimRefused):
            raise
        except* Exception:  # one slot's bug must not end the others' jobs
            log.exception("turn failed")
            await self._discard_child()
            await self._report_bug(job)
        finally:
            self.jobs_cut += attempt.was_cut
            self._attempt = None
            await self._clean_up()

    def _new_attempt(self, job: Job, child: Child, claimed_at: float, log: Any) -> Attempt:
        handler = _handler_of(job, child.zygote)
        terms = Terms.of(
            job.heartbeat_interval,
            time_to_live=math.inf if handler.idempotent else self._rules.lease_ttl,
            longest_interval=self._rules.max_heartbeat_interval,
        )
        grace = self._rules.cancel_grace if handler.cancel_grace is None else handler.cancel_grace
        return Attempt(
            job,
            fence=Fence(self._rules.worker_id, job.job_id, job.attempt),
            lease=Lease(terms, claimed_at=claimed_at),
            child=child,
            server=self._server,
            limits=Limits(handler.timeout, grace),
            workdir=self._workdir,
            log=log,
        )

    @property
    def _workdir(self) -> Path:
        return self._rules.scratch / str(self.number)

    async def _report_bug(self, job: Job) -> None:
        fence = Fence(self._rules.worker_id, job.job_id, job.attempt)
        try:
            await self._server.complete(fence, Failed("SupervisorError", "the supervisor failed; see its log"))
        except ServerError as error:
            self._log.warning("could not report the failure", job_id=job.job_id, error=str(error))

    async def _clean_up(self) -> None:
        """No child that is not idle, no scratch folder, is left to the next job."""
        if self._child is not None and not self._child.is_idle:
            await self._discard_child()
        if self._workdir.exists():
            await asyncio.to_thread(shutil.rmtree, self._workdir, ignore_errors=True)

    async def _discard_child(self) -> None:
        if self._child is not None:
            child, self._child = self._child, None
            await child.kill()


def _handler_of(job: Job, zygote: Zygote) -> HandlerInfo:
    """What is known of the job's handler; for an action that has none, which the child will say, nothing."""
    for handler in zygote.imported.handlers:
        if handler.action == job.action:
            return handler
    return HandlerInfo(job.action, "", "", 0)
