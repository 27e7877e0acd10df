"""Room for one job at a time: claim, attempt, again.

Runs in the parent.  A slot holds a child that can run a job before it claims one.  A bug in one turn ends neither this
slot nor the others.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import structlog

from supervisor.job import Failed, Fence, Job
from supervisor.limits import Limits
from supervisor.logs.log import tells
from supervisor.process.child import Child, State
from supervisor.linux.syscalls import boottime
from supervisor.ipc.messages import HandlerInfo
from supervisor.process.usage import Usage
from supervisor.process.zygote import StartFailed
from supervisor.reporting.report import Reporter
from supervisor.job_server import AuthRevoked, ClaimRefused, JobServer, ServerError
from supervisor.status import SlotState, SlotStatus
from supervisor.text.printable import shown_name
from supervisor.concurrency.timers import Alarms
from supervisor.concurrency.backoff import Backoff
from supervisor.concurrency.cancel_scope import Interruptible
from supervisor.concurrency.helpers import to_the_end
from supervisor.attempt.attempt import Attempt
from supervisor.pool.warm_child import Berth
from supervisor.pool.claims import Claiming
from supervisor.attempt.lease import Lease, LeaseLost, Terms
from supervisor.attempt.outcome import Stop
from supervisor.pool.poll_limit import Polls
from supervisor.linux.remove_tree import remove
from supervisor.attempt.config import Workplace
from supervisor.pool.slot_config import Surroundings

DRAIN_POLL = 0.5
"""Seconds that an open poll gets to come back by itself when draining: on a busy queue it does, with a job."""
GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
_SHOWN: dict[State, SlotState] = {
    State.STARTING: "starting",
    State.IDLE: "idle",
    State.BUSY: "busy",
    State.EXITED: "none",
}


class Slot:
    """One of the places where jobs run."""

    def __init__(
        self,
        number: int,
        *,
        server: JobServer,
        reporter: Reporter,
        polls: Polls,
        around: Surroundings,
    ) -> None:
        self.number = number
        self.jobs_cut = 0
        self._server = server
        self._polls = polls
        self._around = around
        self._log = structlog.get_logger("slot", slot=number)  # not bound for good: a reload may change the level
        self._berth = Berth(around)
        self._head_start = _head_start(number)
        self._place = Workplace(number, str(around.rules.scratch / str(number)), reporter, Alarms())
        self._attempt: Attempt | None = None
        self._draining = False
        self._stop: Stop | None = None  # for all that is still to come
        self._backoff = Backoff(0.2, 15.0)  # after turns that have failed
        self._between_jobs = Interruptible(self._place.alarms)  # by a drain
        self._claiming = Claiming(server, polls, around, self._log)

    def __repr__(self) -> str:
        pid = self._berth.child.pid if self._berth.child else None
        return f"<Slot {self.number} {f'busy {self._attempt.job.job_id}' if self._attempt else 'free'} pid {pid}>"

    @property
    def attempt(self) -> Attempt | None:
        """What runs here now."""
        return self._attempt

    def standstill(self, now: float) -> str | None:
        """What does not move here that should."""
        if now > self._claiming.due_at:
            return f"the claim of slot {self.number} does not end"
        if self._attempt is not None and not self._attempt.is_beating(boottime()):
            return f"the heartbeats of job {shown_name(self._attempt.job.job_id)} are not sent"
        return None

    def status(self, usages: Mapping[int, Usage]) -> SlotStatus:
        """What is here now; `usages` are by pid, of the children at which somebody has looked."""
        child, attempt = self._berth.child, self._attempt
        usage = usages.get(child.pid) if child is not None and child.pid is not None else None
        return SlotStatus(
            slot=self.number,
            pid=child.pid if child else None,
            state=self._state(child),
            jobs=child.jobs if child else 0,
            job=attempt.status(usage) if attempt else None,
            memory=usage.memory if usage else None,
        )

    def _state(self, child: Child | None) -> SlotState:
        if self._attempt is not None and self._attempt.is_reporting:  # its child may be gone
            return "reporting"
        if child is None:
            return "none" if self._draining else "starting"
        if self._attempt is not None and self._attempt.is_stopping:
            return "stopping"
        return _SHOWN[child.state]

    def may_run(self, action: str) -> bool:
        """Whether a job of this action runs here, or may come with the claim that is open."""
        return action in self._claiming.asked or (self._attempt is not None and self._attempt.job.action == action)

    def asks_for(self, action: str) -> bool:
        """Whether the claim that is open asks for it."""
        return action in self._claiming.asked

    async def run(self) -> None:
        """Run jobs until drained; when this returns the slot's child is gone."""
        try:
            while not self._draining:
                try:
                    if (job := await self._next_job()) is not None:
                        try:
                            await self._work(job)
                        finally:
                            self._around.leave(job)
                            job.close()
                except* (AuthRevoked, ClaimRefused, StartFailed):  # they concern all slots
                    raise
                except* Exception:  # noqa: BLE001 - one slot's bug must not end the others' jobs
                    self._log.exception("turn failed")
                    await self._recover()
        finally:
            await self._berth.discard("shutdown")

    async def _recover(self) -> None:
        """Begin anew, with another child, and not at once."""
        await self._berth.discard("killed")
        if not self._draining:
            with self._between_jobs:
                await asyncio.sleep(self._backoff.next())

    def drain(self) -> None:
        """Claim nothing new; a job that runs goes on."""
        if not self._draining:
            self._between_jobs.end_in(DRAIN_POLL)
        self._draining = True

    def stop(self, why: Stop) -> None:
        """Drain at once, and have the running job stopped, or the one that an answer at hand brings."""
        self._draining = True
        self._stop = why
        self._between_jobs.end_in(0.0)
        if self._attempt is not None:
            self._attempt.stop(why)

    @property
    def is_leaving(self) -> bool:
        """Whether it claims nothing more."""
        return self._draining

    def look_again(self) -> None:
        """The code has changed, or whether anything is to be claimed: what comes before a job begins anew.

        A poll that is open is given its time, and a job that it brings is run.
        """
        if self._claiming.asked:
            self._between_jobs.end_in(DRAIN_POLL)
        elif not self._draining and not self._berth.is_starting:
            self._between_jobs.end()  # at once, for a claim may be opened in the next turn of the loop

    async def _next_job(self) -> Job | None:
        """Wait for a job with a child that can run it; None when there is none yet, or the slot is drained."""
        job = None
        with self._between_jobs:
            try:
                if not self._berth.is_warm:
                    await self._berth.warm()
                if not self._polls.has_room:
                    await self._polls.room()
                with self._polls:
                    # Draining meanwhile: a turn that was waited for is not taken.
                    job = None if self._draining else await self._claiming.claim()
                if not (job or self._claiming.asked or self._draining):
                    await self._around.room()  # not as one of the polls that may be open
            finally:
                self._claiming.over()
                self._around.made_room()  # also when a job has come: for the other actions that were asked for
        return job

    async def _work(self, job: Job) -> None:
        claimed_at = self._claiming.answered_at
        handler = self._around.zygote.handler_of(job.action)
        left_over = self._left_over_for(job) if handler is None else None
        is_known = handler is not None or left_over is not None
        limits = self._limits_of(handler if left_over is None else left_over.zygote.handler_of(job.action))
        child = left_over or self._berth.child_at_hand(limits)
        # From here on it is seen, counted, kept and stopped as any other, whether there is a child for it or not.
        attempt = self._attempt = self._new_attempt(job, child, limits)
        if child is not None:
            self._around.ledger.job_start_seconds.observe(boottime() - claimed_at)
        if tells("debug"):
            attempt.log.debug("claimed")
        if self._stop is not None:
            attempt.stop(self._stop)
        try:
            refusal = self._around.quarantine.refusal(job, claimed_at)
            await attempt.run(refusal, None if child is not None else partial(self._child_for, limits, claimed_at))
            if self._backoff.failures:
                self._backoff.reset()
        except* (AuthRevoked, ClaimRefused):
            raise
        except* Exception as failed:  # noqa: BLE001 - nor must a bug in one attempt
            await self._give_up(attempt, failed)
        finally:
            self._attempt = None
            self._around.made_room()  # not only after the cleaning, which may take long
            self._learn(attempt, is_known=is_known)
            if attempt.has_left_files or not self._berth.is_kept(limits):
                await self._clean_up(limits, attempt)

    async def _child_for(self, limits: Limits, claimed_at: float) -> Child:
        child = await self._berth.child_for(limits)
        self._around.ledger.job_start_seconds.observe(boottime() - claimed_at)
        return child

    async def _give_up(self, attempt: Attempt, failed: ExceptionGroup[Exception]) -> None:
        """The attempt has ended without an outcome: because its lease was lost, or of a bug of ours."""
        lost, bugs = failed.split(LeaseLost)
        log = attempt.log
        await self._berth.discard("killed")
        if lost is not None:
            log.warning(_loss_of(attempt), reason=f"{_first(lost)}{self._excuse(attempt)}")
        if bugs is not None:
            log.error("turn failed", exc_info=bugs)
            if attempt.owes_report:
                await self._report_bug(attempt.job)

    def _excuse(self, attempt: Attempt) -> str:
        """Why the lease may have been lost without any fault of the network or of the server."""
        stood_still = self._around.pulse.stood_still(boottime(), since=attempt.renewed_at)
        return f"; the supervisor itself stood still for about {stood_still:.0f} s" if stood_still else ""

    def _learn(self, attempt: Attempt, *, is_known: bool) -> None:
        self._around.ledger.job_ended(attempt.ended(time.time()), is_known=is_known)
        self.jobs_cut += attempt.was_cut
        if attempt.killed_its_child:
            self._note_crash(attempt.job)
        elif (attempt.has_succeeded or attempt.was_run) and self._around.quarantine.survived(attempt.job):
            self._log.warning("handler quarantine ended: a child survived a job", action=attempt.job.action)

    def _note_crash(self, job: Job) -> None:
        pause = self._around.quarantine.died(job, boottime())
        if pause is not None:
            self._log.error("handler quarantined: it is left out of claims", action=job.action, trial_in=pause)
            self._around.leave_out(job.action)

    def _left_over_for(self, job: Job) -> Child | None:
        """The child with the old code, for a job that the last claim before a reload brought and no new code runs."""
        child = self._berth.child
        if child is None or not child.is_idle:
            return None
        handler = child.zygote.handler_of(job.action)
        must_be_fresh = handler is not None and handler.limits.isolation == "fresh"
        return None if handler is None or (must_be_fresh and child.jobs > 0) else child

    def _limits_of(self, handler: HandlerInfo | None) -> Limits:
        """The limits of a job's handler; for an action that has none, which the child will say, the settings'."""
        return handler.limits.or_else(self._around.rules.limits) if handler else self._around.rules.limits

    def _new_attempt(self, job: Job, child: Child | None, limits: Limits) -> Attempt:
        rules = self._around.rules
        terms = Terms.of(
            job.heartbeat_interval,
            time_to_live=rules.lease_ttl,
            longest_interval=rules.max_heartbeat_interval,
            endures_silence=limits.idempotent,
        )
        lease = Lease(terms, claimed_at=self._claiming.granted_at, head_start=self._head_start)
        claimed_at = self._claiming.answered_at
        return Attempt(job, self._place, rules, limits, lease=lease, child=child, claimed_at=claimed_at)

    async def _report_bug(self, job: Job) -> None:
        fence = Fence(self._around.rules.worker_id, job.job_id, job.attempt)
        try:
            await self._server.complete(fence, Failed("SupervisorError", "the supervisor failed; see its log"))
        except ServerError as error:
            self._log.warning("could not report the failure", job_id=job.job_id, error=str(error))

    async def _clean_up(self, limits: Limits, attempt: Attempt) -> None:
        """No spent child and no scratch folder is left to the next job."""
        if not self._berth.is_kept(limits):
            await self._berth.settle(limits, attempt.why_child_ended)
        if attempt.has_left_files and _exists(self._place.workdir):
            await self._remove(self._place.workdir)

    async def _remove(self, workdir: str) -> None:
        try:
            await to_the_end(remove, Path(workdir))  # or it would go on beside the removal of everything at our end
        except OSError as error:
            another = self._around.rules.scratch / f"{self.number}-{uuid4().hex}"
            self._place = replace(self._place, workdir=str(another))
            self._log.warning(
                "a job's folder cannot be removed: it stays, and the next job gets another one",
                folder=workdir,
                error=str(error),
            )


def _loss_of(attempt: Attempt) -> str:
    """What it means for an attempt that its lease is lost."""
    if attempt.has_outcome:  # perhaps it is in the spool, to be sent again
        return "lease lost before the server took the outcome"
    return "lease lost: killed, nothing more is reported"


def _head_start(number: int) -> float:
    """The part of an interval by which this slot's first heartbeats come early, at most a half.

    Otherwise jobs that are claimed in one burst beat in one burst for ever, and the last of them is late.  Multiples
    of the golden ratio lie far apart, however many there are.
    """
    return number * GOLDEN_RATIO % 1 / 2


def _first(group: ExceptionGroup[Exception]) -> Exception:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


def _exists(path: str) -> bool:
    # A look at a name in a folder of our own, which the kernel has at hand: a thread would cost twenty times as much.
    return os.access(path, os.F_OK, follow_symlinks=False)
