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

from supervisor.attempt.attempt import Attempt
from supervisor.attempt.config import SlotResources
from supervisor.attempt.lease import Lease, LeaseLost, LeaseTerms
from supervisor.attempt.outcome import StopReason
from supervisor.concurrency.backoff import Backoff
from supervisor.concurrency.cancel_scope import CancelScope
from supervisor.concurrency.helpers import to_thread_uncancelled
from supervisor.concurrency.timers import TimerQueue
from supervisor.ipc.messages import HandlerInfo
from supervisor.job import Failed, Fence, Job
from supervisor.job_server import AuthRevoked, ClaimRefused, JobServer, ServerError
from supervisor.limits import Limits
from supervisor.linux.remove_tree import remove_tree
from supervisor.linux.syscalls import boottime
from supervisor.logs.log import is_enabled
from supervisor.pool.claims import Claimer
from supervisor.pool.poll_limit import PollLimiter
from supervisor.pool.slot_config import SlotHost
from supervisor.pool.warm_child import WarmChild
from supervisor.process.child import Child, ChildState
from supervisor.process.usage import Usage
from supervisor.process.zygote import StartFailed
from supervisor.reporting.report import Reporter
from supervisor.status import SlotState, SlotStatus
from supervisor.text.printable import shown_name

DRAIN_POLL_TIMEOUT = 0.5
"""Seconds that an open poll gets to come back by itself when draining: on a busy queue it does, with a job."""
GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
_SLOT_STATES: dict[ChildState, SlotState] = {
    ChildState.STARTING: "starting",
    ChildState.IDLE: "idle",
    ChildState.BUSY: "busy",
    ChildState.EXITED: "none",
}


class Slot:
    """One of the places where jobs run."""

    def __init__(
        self,
        number: int,
        *,
        server: JobServer,
        reporter: Reporter,
        poll_limit: PollLimiter,
        host: SlotHost,
    ) -> None:
        self.number = number
        self.jobs_interrupted = 0
        self._server = server
        self._poll_limit = poll_limit
        self._host = host
        self._log = structlog.get_logger("slot", slot=number)  # not bound for good: a reload may change the level
        self._warm_child = WarmChild(host)
        self._first_beat_offset = first_beat_offset(number)
        self._resources = SlotResources(number, str(host.config.scratch / str(number)), reporter, TimerQueue())
        self._attempt: Attempt | None = None
        self._draining = False
        self._stop: StopReason | None = None  # for all that is still to come
        self._backoff = Backoff(0.2, 15.0)  # after turns that have failed
        self._idle_scope = CancelScope(self._resources.alarms)  # by a drain
        self._claimer = Claimer(server, poll_limit, host, self._log)

    def __repr__(self) -> str:
        pid = self._warm_child.child.pid if self._warm_child.child else None
        return f"<Slot {self.number} {f'busy {self._attempt.job.job_id}' if self._attempt else 'free'} pid {pid}>"

    @property
    def attempt(self) -> Attempt | None:
        """What runs here now."""
        return self._attempt

    def stall_reason(self, now: float) -> str | None:
        """What does not move here that should."""
        if now > self._claimer.deadline:
            return f"the claim of slot {self.number} does not end"
        if self._attempt is not None and not self._attempt.is_beating(boottime()):
            return f"the heartbeats of job {shown_name(self._attempt.job.job_id)} are not sent"
        return None

    def status(self, usages: Mapping[int, Usage]) -> SlotStatus:
        """What is here now; `usages` are by pid, of the children at which somebody has looked."""
        child, attempt = self._warm_child.child, self._attempt
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
        return _SLOT_STATES[child.state]

    def counts_against(self, action: str) -> bool:
        """Whether a job of this action runs here, or may come with the claim that is open."""
        return action in self._claimer.asked or (self._attempt is not None and self._attempt.job.action == action)

    def asks_for(self, action: str) -> bool:
        """Whether the claim that is open asks for it."""
        return action in self._claimer.asked

    async def run(self) -> None:
        """Run jobs until drained; when this returns the slot's child is gone."""
        try:
            while not self._draining:
                try:
                    if (job := await self._next_job()) is not None:
                        try:
                            await self._work(job)
                        finally:
                            self._host.release(job)
                            job.close()
                except* (AuthRevoked, ClaimRefused, StartFailed):  # they concern all slots
                    raise
                except* Exception:  # noqa: BLE001 - one slot's bug must not end the others' jobs
                    self._log.exception("turn failed")
                    await self._recover()
        finally:
            await self._warm_child.end("shutdown")

    async def _recover(self) -> None:
        """Begin anew, with another child, and not at once."""
        await self._warm_child.end("killed")
        if not self._draining:
            with self._idle_scope:
                await asyncio.sleep(self._backoff.next())

    def drain(self) -> None:
        """Claim nothing new; a job that runs goes on."""
        if not self._draining:
            self._idle_scope.cancel_in(DRAIN_POLL_TIMEOUT)
        self._draining = True

    def stop(self, why: StopReason) -> None:
        """Drain at once, and have the running job stopped, or the one that an answer at hand brings."""
        self._draining = True
        self._stop = why
        self._idle_scope.cancel_in(0.0)
        if self._attempt is not None:
            self._attempt.stop(why)

    @property
    def is_leaving(self) -> bool:
        """Whether it claims nothing more."""
        return self._draining

    def wake(self) -> None:
        """The code has changed, or whether anything is to be claimed: what comes before a job begins anew.

        A poll that is open is given its time, and a job that it brings is run.
        """
        if self._claimer.asked:
            self._idle_scope.cancel_in(DRAIN_POLL_TIMEOUT)
        elif not self._draining and not self._warm_child.is_starting:
            self._idle_scope.cancel()  # at once, for a claim may be opened in the next turn of the loop

    async def _next_job(self) -> Job | None:
        """Wait for a job with a child that can run it; None when there is none yet, or the slot is drained."""
        job = None
        with self._idle_scope:
            try:
                if not self._warm_child.is_ready:
                    await self._warm_child.get()
                if not self._poll_limit.is_available:
                    await self._poll_limit.wait_available()
                with self._poll_limit:
                    # Draining meanwhile: a turn that was waited for is not taken.
                    job = None if self._draining else await self._claimer.claim()
                if not (job or self._claimer.asked or self._draining):
                    await self._host.wait_for_capacity()  # not as one of the polls that may be open
            finally:
                self._claimer.finish()
                self._host.notify_capacity()  # also when a job has come: for the other actions that were asked for
        return job

    async def _work(self, job: Job) -> None:
        claimed_at = self._claimer.answered_at
        handler = self._host.zygote.handler_of(job.action)
        left_over = self._outdated_child_for(job) if handler is None else None
        is_known = handler is not None or left_over is not None
        limits = self._limits_of(handler if left_over is None else left_over.zygote.handler_of(job.action))
        child = left_over or self._warm_child.ready_for(limits)
        # From here on it is seen, counted, kept and stopped as any other, whether there is a child for it or not.
        attempt = self._attempt = self._new_attempt(job, child, limits)
        if child is not None:
            self._host.stats.job_start_seconds.observe(boottime() - claimed_at)
        if is_enabled("debug"):
            attempt.log.debug("claimed")
        if self._stop is not None:
            attempt.stop(self._stop)
        try:
            refusal = self._host.quarantine.rejection_for(job, claimed_at)
            await attempt.run(refusal, None if child is not None else partial(self._child_for, limits, claimed_at))
            if self._backoff.failures:
                self._backoff.reset()
        except* (AuthRevoked, ClaimRefused):
            raise
        except* Exception as failed:  # noqa: BLE001 - nor must a bug in one attempt
            await self._abandon(attempt, failed)
        finally:
            self._attempt = None
            self._host.notify_capacity()  # not only after the cleaning, which may take long
            self._record(attempt, is_known=is_known)
            if attempt.has_workdir or not self._warm_child.is_reusable(limits):
                await self._clean_up(limits, attempt)

    async def _child_for(self, limits: Limits, claimed_at: float) -> Child:
        child = await self._warm_child.get_for(limits)
        self._host.stats.job_start_seconds.observe(boottime() - claimed_at)
        return child

    async def _abandon(self, attempt: Attempt, failed: ExceptionGroup[Exception]) -> None:
        """The attempt has ended without an outcome: because its lease was lost, or of a bug of ours."""
        lost, bugs = failed.split(LeaseLost)
        log = attempt.log
        await self._warm_child.end("killed")
        if lost is not None:
            log.warning(_lease_loss_event(attempt), reason=f"{_first(lost)}{self._stall_note(attempt)}")
        if bugs is not None:
            log.error("turn failed", exc_info=bugs)
            if attempt.needs_failure_report:
                await self._report_bug(attempt.job)

    def _stall_note(self, attempt: Attempt) -> str:
        """Why the lease may have been lost without any fault of the network or of the server."""
        stood_still = self._host.loop_monitor.stall_before(boottime(), since=attempt.renewed_at)
        return f"; the supervisor itself stood still for about {stood_still:.0f} s" if stood_still else ""

    def _record(self, attempt: Attempt, *, is_known: bool) -> None:
        self._host.stats.job_ended(attempt.recent_entry(time.time()), is_known=is_known)
        self.jobs_interrupted += attempt.was_interrupted
        if attempt.has_crashed_child:
            self._note_crash(attempt.job)
        elif (attempt.has_succeeded or attempt.has_run) and self._host.quarantine.record_success(attempt.job):
            self._log.warning("handler quarantine ended: a child survived a job", action=attempt.job.action)

    def _note_crash(self, job: Job) -> None:
        pause = self._host.quarantine.record_crash(job, boottime())
        if pause is not None:
            self._log.error("handler quarantined: it is left out of claims", action=job.action, trial_in=pause)
            self._host.leave_out(job.action)

    def _outdated_child_for(self, job: Job) -> Child | None:
        """The child with the old code, for a job that the last claim before a reload brought and no new code runs."""
        child = self._warm_child.child
        if child is None or not child.is_idle:
            return None
        handler = child.zygote.handler_of(job.action)
        must_be_fresh = handler is not None and handler.limits.isolation == "fresh"
        return None if handler is None or (must_be_fresh and child.jobs > 0) else child

    def _limits_of(self, handler: HandlerInfo | None) -> Limits:
        """The limits of a job's handler; for an action that has none, which the child will say, the settings'."""
        return handler.limits.or_else(self._host.config.limits) if handler else self._host.config.limits

    def _new_attempt(self, job: Job, child: Child | None, limits: Limits) -> Attempt:
        rules = self._host.config
        terms = LeaseTerms.of(
            job.heartbeat_interval,
            time_to_live=rules.lease_ttl,
            longest_interval=rules.max_heartbeat_interval,
            endures_silence=limits.idempotent,
        )
        lease = Lease(terms, claimed_at=self._claimer.lease_started_at, head_start=self._first_beat_offset)
        claimed_at = self._claimer.answered_at
        return Attempt(job, self._resources, rules, limits, lease=lease, child=child, claimed_at=claimed_at)

    async def _report_bug(self, job: Job) -> None:
        fence = Fence(self._host.config.worker_id, job.job_id, job.attempt)
        try:
            await self._server.complete(fence, Failed("SupervisorError", "the supervisor failed; see its log"))
        except ServerError as error:
            self._log.warning("could not report the failure", job_id=job.job_id, error=str(error))

    async def _clean_up(self, limits: Limits, attempt: Attempt) -> None:
        """No spent child and no scratch folder is left to the next job."""
        if not self._warm_child.is_reusable(limits):
            await self._warm_child.recycle(limits, attempt.why_child_ended)
        if attempt.has_workdir and _exists(self._resources.workdir):
            await self._remove(self._resources.workdir)

    async def _remove(self, workdir: str) -> None:
        try:
            await to_thread_uncancelled(
                remove_tree, Path(workdir)
            )  # or it would go on beside the removal of everything at our end
        except OSError as error:
            another = self._host.config.scratch / f"{self.number}-{uuid4().hex}"
            self._resources = replace(self._resources, workdir=str(another))
            self._log.warning(
                "a job's folder cannot be removed: it stays, and the next job gets another one",
                folder=workdir,
                error=str(error),
            )


def _lease_loss_event(attempt: Attempt) -> str:
    """What it means for an attempt that its lease is lost."""
    if attempt.has_outcome:  # perhaps it is in the spool, to be sent again
        return "lease lost before the server took the outcome"
    return "lease lost: killed, nothing more is reported"


def first_beat_offset(number: int) -> float:
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
