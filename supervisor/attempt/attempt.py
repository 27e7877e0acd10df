"""One attempt at one job: keep its lease, watch its child, send its events, report its outcome.

Runs in the parent.  The lease is kept until the report is settled, not only until the handler ends.  Whoever awaits
`run` learns of nothing but the exceptions that end an attempt: `LeaseLost` and `AuthRevoked`.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from supervisor.job import Blob, Event, Failed, Fence, Job, Outcome, Succeeded
from supervisor.stats import ExitReason
from supervisor.limits import Limits
from supervisor.logs.log import JobLog, tells
from supervisor.process.child import Child, ChildDied, ChildLost
from supervisor.linux.syscalls import boottime
from supervisor.ipc.messages import Run
from supervisor.process.usage import Usage, tree_memory
from supervisor.reporting.report import Refused, Report
from supervisor.status import JobStatus, Recent
from supervisor.concurrency.helpers import Alongside
from supervisor.attempt.event_sender import Courier
from supervisor.attempt.heartbeats import Heart, look_twice
from supervisor.attempt.lease import Lease, LeaseLost
from supervisor.attempt.outcome import (
    CANCELLED,
    NOT_BEGUN,
    SHUTDOWN,
    Label,
    Stop,
    decide,
    labelled,
    over_memory,
    timed_out,
)
from supervisor.attempt.status import first_line, job_status
from supervisor.attempt.job_output import Speech
from supervisor.attempt.stop import Stopping, terminate_then_kill
from supervisor.attempt.config import Rules, Workplace
from supervisor.attempt.no_child import UNBORN, Unborn

CANCEL_FLUSH = 1.0
"""Seconds that events may hold up the report of a cancelled job; any other job's are all delivered first."""

QUICK = 1.0
"""Seconds; a job that is over sooner costs no line in the log, and nobody has looked at its lease."""
MEMORY_INTERVAL = 0.25
"""Seconds between two looks at what a job with a memory limit uses."""

Birth = Callable[[], Coroutine[Any, Any, Child]]
"""Waits for a child that can be given the job."""


class Attempt:
    """From a claimed job to its settled report."""

    # What most attempts never have, or only in the end.
    has_succeeded = False
    """Whether the server has a result of it."""
    has_left_files = True
    """Whether its folder may be there: its child may say otherwise."""
    _seconds: float | None = None  # that its handler took, once that is over
    _speech: Speech | None = None  # of its handler, once it has said something
    _ran = False
    _child_is_spent = False
    _told_nothing = False
    _is_quick = True  # so far
    _waiting: asyncio.Task[Child] | None = None  # for a child
    _told: Outcome | None = None
    _is_delivering = False  # its last events
    _is_hurried = False  # by the end of the program
    _report: Report | None = None
    _reported: Outcome | None = None

    def __init__(
        self,
        job: Job,
        place: Workplace,
        rules: Rules,
        limits: Limits,
        *,
        lease: Lease,
        child: Child | None,
        claimed_at: float,
        now: Callable[[], float] = boottime,
    ) -> None:
        """`claimed_at` is a time of the clock `now`; `child` is None when there is none yet."""
        self.job = job
        self._fence = Fence(rules.worker_id, job.job_id, job.attempt)
        self._lease = lease
        self._child: Child | Unborn = UNBORN if child is None else child
        self._place = place
        self._rules = rules
        self._limits = limits
        self._log: Any = JobLog(place.number, job, None if child is None else child.pid)
        self._now = now
        self._began_at = claimed_at
        self._stopping = Stopping()
        self._beside = Alongside(place.alarms)

    def __repr__(self) -> str:
        return f"<Attempt {self._fence} {self._lease.state.value}>"

    @property
    def log(self) -> Any:
        """Its lines say which job it is, and where."""
        return self._log

    @property
    def was_cut(self) -> bool:
        """Whether our own shutdown has ended it before it was done."""
        return self._stopping.why is SHUTDOWN and not self.has_succeeded

    @property
    def grace(self) -> float:
        """Seconds from SIGTERM to SIGKILL."""
        return self._limits.cancel_grace or 0.0

    @property
    def was_run(self) -> bool:
        """Whether its child was given the job and came through, or was stopped by us, while it was ours."""
        return self._ran and not self._lease.is_lost

    @property
    def why_child_ended(self) -> ExitReason:
        """Why its child is of no use any more, if it is."""
        if self.killed_its_child:
            return "crash"
        return "killed" if self._stopping.is_under_way or self._lease.is_lost else "recycle"

    @property
    def killed_its_child(self) -> bool:
        """Whether its child died, and not because we wanted it to, or had told the kernel when to kill it."""
        if not self._told_nothing or self._stopping.is_under_way or self._lease.is_lost:
            return False
        return self._child.ending is None or not self._child.ending.is_at_limit

    @property
    def owes_report(self) -> bool:
        """Whether it ended without one, though the job is ours: not that of an outcome that waits in the spool."""
        return not (self.is_kept or self._lease.is_lost or self._lease.is_released)

    @property
    def is_kept(self) -> bool:
        """Whether its outcome is on disk, from where the next program sends it as well."""
        return self._report is not None and self._report.is_kept

    @property
    def renewed_at(self) -> float:
        """Since when its lease was not renewed."""
        return self._lease.renewed_at

    @property
    def has_outcome(self) -> bool:
        """Whether it came so far that there was something to report."""
        return self._report is not None

    @property
    def can_be_left(self) -> bool:
        """Whether nothing is lost when it ends now: the server has its events, and its outcome is on disk."""
        return self.is_kept and (self._courier is None or self._courier.is_idle)

    def is_beating(self, now: float) -> bool:
        """Whether its heartbeats are sent when they are due, answered or not, as long as any are to be sent."""
        return self._beside.is_over or self._lease.is_lost or not self._lease.is_overdue(now)

    def status(self, usage: Usage | None) -> JobStatus:
        """How it goes; `usage` is what its child's process tree uses, if somebody has looked."""
        now = self._now()
        return job_status(
            self.job,
            child=self._child,
            lease=self._lease,
            limits=self._limits,
            elapsed=self._took(now),
            progress=self._speech.progress if self._speech is not None else b"",
            stop=self._stopping.why,
            beat_overdue=not self.is_beating(now),
            usage=usage,
            mask=self._rules.mask,
            now=now,
        )

    def ended(self, at: float) -> Recent:
        """How it went, once it is over: `at` is the time of day."""
        return Recent(
            job_id=self.job.job_id,
            action=self.job.action,
            attempt=self.job.attempt,
            outcome=self._label,
            message=first_line(self._reported) if isinstance(self._reported, Failed) else None,
            seconds=self._took(self._now()),
            ended_at=at,
        )

    def _took(self, now: float) -> float:
        """Seconds from the claim to the end of its handler, or until `now`."""
        return now - self._began_at if self._seconds is None else self._seconds

    @property
    def _label(self) -> Label:
        if self.has_succeeded:
            return Label.COMPLETED
        if self._reported is None:
            return Label.LEASE_LOST if self._lease.is_lost else Label.FAILED
        stop, ending = self._stopping.why, self._child.ending
        return labelled(self._reported, stop=stop, ending=ending, has_crashed=self.killed_its_child)

    async def stack(self) -> str:
        """The Python stack of its child as it is now; raise `TimeoutError` when the child cannot write it."""
        return self._rules.mask(await self._child.stack())

    async def run(self, refusal: Failed | None = None, child_for_it: Birth | None = None) -> None:
        """Run the job and report it; or report `refusal` instead of running it.  `child_for_it` is waited for.

        In the end the child is idle, or it is dead and everything that it started as well.
        """
        async with self._beside:
            # Not only when the first beat is due: a suspend before it would be noticed that late.
            quick = min(QUICK, self._place.reporter.spool_after or QUICK)
            first_look_after = min(quick, self._lease.next_beat_at - self._began_at)
            if first_look_after <= 0:  # it was granted long before we saw it
                self._check_lease()
            self._beside.start_after(first_look_after, self._look_after_it)
            if child_for_it is not None and refusal is None:
                await self._wait_for(child_for_it)
            told = refusal or await self._run_handler()
            await self._conclude(told)

    def stop(self, why: Stop) -> None:
        """Have the handler stopped, first politely; what it still says may count (see `outcome.decide`)."""
        if not self._stopping.takes(why, has_ended=self.is_reporting):
            return
        if self._waiting is not None:
            self._waiting.cancel()
        if self._is_delivering:
            self._beside.start(self._heed_cancel)
        if self._child.is_busy and not self._stopping.is_under_way:
            self._stopping.since = self._now()
            self._log.info("stopping the handler", reason=why.message, grace=self.grace)
            self._child.resume()
            self._beside.start(lambda: terminate_then_kill(self._child, self.grace, self._log))

    def look_at_lease(self) -> None:
        """It may be over: the machine was suspended."""
        self._beside.start(lambda: look_twice(self._lease, self._now))

    def hurry(self, patience: float) -> None:
        """The program ends: have the outcome on disk, then drop events if the server takes none for `patience` s."""
        report, courier = self._report, self._courier
        if report is None:
            return
        if not self._is_hurried:
            self._is_hurried = True
            self._beside.start(report.keep)
        elif report.is_kept and courier is not None and courier.has_stalled(patience):
            courier.give_up("the program ends")

    @property
    def undelivered_events(self) -> int:
        """How many of its events the server does not have."""
        return 0 if self._courier is None else self._courier.undelivered

    @property
    def is_stopping(self) -> bool:
        """Whether its handler was asked to stop."""
        return self._stopping.is_under_way

    @property
    def is_reporting(self) -> bool:
        """Whether its handler is done, or will not be run: what is left is to tell the server how it ended."""
        return self._report is not None or (self._ran and not self._child.is_busy)

    def heard_event(self, event: Event) -> None:
        self._its_speech.take_event(event)

    def heard_log(self, level: int, text: str, logger: str) -> None:
        self._its_speech.take_log(level, text, logger)

    def heard_line(self, line: str) -> None:
        self._its_speech.take_line(line)

    @property
    def _its_speech(self) -> Speech:
        if self._speech is None:
            self._speech = Speech(
                self._new_courier,
                rules=self._rules,
                ledger=self._place.reporter.ledger,
                stopping=self._stopping,
                beside=self._beside,
                log=self._log,
                now=self._now,
            )
        return self._speech

    def _new_courier(self) -> Courier:
        return Courier(
            self._fence,
            lease=self._lease,
            server=self._place.reporter.server,
            ledger=self._place.reporter.ledger,
            tap=self._child,
            beside=self._beside,
            log=self._log,
            now=self._now,
        )

    @property
    def _courier(self) -> Courier | None:
        """Who has its events; None before the first one."""
        return None if self._speech is None else self._speech.courier

    @property
    def _order(self) -> Run:
        nice, threads = self._limits.nice or 0, self._limits.threads or 1
        return Run(self.job, self._fence.worker_id, self._place.workdir, nice=nice, threads=threads)

    async def _wait_for(self, child_for_it: Birth) -> None:
        """Until there is a child for it, or it is stopped; the lease is kept meanwhile."""
        while not self._child.is_idle and self._stopping.why is None:  # one may die on its way from there to here
            self._waiting = self._beside.create_task(child_for_it())
            await asyncio.wait([self._waiting])
            if not self._waiting.cancelled():
                self._child = self._waiting.result()
                self._log = JobLog(self._place.number, self.job, self._child.pid)
            self._waiting = None
            self._check_lease()

    async def _run_handler(self) -> Outcome | None:
        """What the child told; None when it died before."""
        if self._stopping.why is not None:
            return NOT_BEGUN
        self._ran = True
        if not self._is_quick:  # it was looked at before it had a child
            self._beside.start(self._child.be_taken_up)
        if self._limits.timeout is not None:
            self._beside.start_after(self._limits.timeout, self._time_out)
        if self._limits.memory is not None and not self._child.bound_memory(self._limits.memory):
            self._beside.start_after(MEMORY_INTERVAL, self._watch_memory)
        try:
            told = await self._child.run(self._order, self)
        except ChildDied:
            await self._child.kill()  # it is dead, but what it started may not be
            self._told_nothing = True
            return None
        except ChildLost as lost:  # perhaps it still runs: the server is told nothing, and gives the job away later
            raise LeaseLost(f"{lost}: the job is left to its lease") from lost
        # A child that was interrupted in the middle of somebody's code is never used again.
        self._child_is_spent = self._stopping.is_under_way or not told.reusable
        self.has_left_files = told.has_workdir
        return told.outcome

    async def _look_after_it(self) -> None:
        """From the first look on: it is not one of those that are over in a moment."""
        self._is_quick = False
        self._log.info("being reported" if self.is_reporting else "running", seconds=self._elapsed)
        if self._report is not None:
            self._beside.start(self._keep_in_time)
        if self._ran:
            self._beside.start(self._child.be_taken_up)
        heart = Heart(
            self._fence,
            lease=self._lease,
            server=self._place.reporter.server,
            ledger=self._place.reporter.ledger,
            beside=self._beside,
            on_cancel=lambda: self.stop(CANCELLED),
            on_lost=lambda: self._child.kill_now(),  # which it may not have yet
            log=self._log,
            now=self._now,
        )
        await heart.keep_lease()

    @property
    def _elapsed(self) -> float:
        return round(self._now() - self._began_at, 3)

    async def _time_out(self) -> None:
        assert self._limits.timeout is not None
        self.stop(timed_out(self._limits.timeout))

    async def _watch_memory(self) -> None:
        """Stop the job once it uses more than its limit."""
        limit = self._limits.memory
        assert limit is not None
        while self._child.is_busy and self._child.pid is not None:
            used = await asyncio.to_thread(tree_memory, self._child.pid, exact_above=limit)
            if used > limit:
                self.stop(over_memory(used, limit))
                return
            await asyncio.sleep(MEMORY_INTERVAL)

    async def _deliver_events(self) -> None:
        """Wait until the server has all events, which it refuses after the report."""
        if (courier := self._courier) is not None and not courier.is_idle:
            self._is_delivering = True
            if self._stopping.is_by_cancel:
                self._beside.start(self._heed_cancel)
            await courier.delivered()
            self._is_delivering = False

    async def _heed_cancel(self) -> None:
        """A cancel that is seen before the report begins, be it while the events are delivered, still counts."""
        assert self._report is not None
        assert self._courier is not None
        await self._report.replace(self._decide(self._told))
        await asyncio.sleep(CANCEL_FLUSH)
        self._courier.give_up("the job is cancelled")

    def _decide(self, told: Outcome | None) -> Outcome:
        outcome = decide(told, stop=self._stopping.why, ending=self._child.ending)
        # A message may quote what was printed.
        return Failed(outcome.error_type, self._rules.mask(outcome.message)) if isinstance(outcome, Failed) else outcome

    def _note_stop(self, since: float, told: Outcome | None) -> None:
        """It was stopped, and the child is gone: how long that took, and what did it."""
        ledger = self._place.reporter.ledger
        ledger.cancel_latency.observe(self._now() - since)
        ending = self._child.ending
        was_killed = ending is not None and ending.exit.signal == signal.SIGKILL
        ledger.kill_stages["cooperative" if told is not None else "kill" if was_killed else "term"] += 1

    async def _conclude(self, told: Outcome | None) -> None:
        """Deliver the events, then the outcome; whatever happens meanwhile, the outcome is not lost."""
        if self._speech is not None:
            self._speech.end()
        self._seconds = self._now() - self._began_at
        self._told = told
        report = self._report = self._place.reporter.report(self._fence, self.job.action, self._decide(told), self._log)
        try:
            if self._is_plain:
                self._lease.report_begins()
            else:
                await self._make_certain(report, told)
            # It is checked before each send: after a suspend the replay may ask the server whether it still counts.
            answer = await report.deliver(self._check_lease)
        finally:
            try:
                await report.end(is_ours=not self._lease.is_refused)
            finally:
                _close(told)
        # Nothing is awaited from here on: a lease that is over takes no heartbeat's answer.
        if isinstance(answer, Refused):
            raise self._lease.report_refused(answer.why)
        self._lease.report_accepted()
        self._reported = report.outcome
        self.has_succeeded = isinstance(report.outcome, Succeeded)
        self._log_outcome(report.outcome, self._seconds)

    def _check_lease(self) -> None:
        self._lease.check(self._now())

    @property
    def _is_plain(self) -> bool:
        """Whether nothing is left to be done or waited for before the report begins, as with most jobs."""
        if self._speech is not None or self._child_is_spent or self._stopping.is_under_way:
            return False
        return self._is_quick and self._place.reporter.spool_after > 0  # else the first look has it kept

    async def _make_certain(self, report: Report, told: Outcome | None) -> None:
        """Do what is to be done before the report begins; a cancel that comes meanwhile still counts."""
        if not self._is_quick or self._place.reporter.spool_after == 0:
            await self._keep_in_time()
        if self._child_is_spent:
            await self._child.kill()
        if self._stopping.since is not None:
            self._note_stop(self._stopping.since, told)
        await self._deliver_events()
        outcome = self._decide(told)
        self._lease.report_begins()  # a cancel that comes from here on comes too late
        await report.replace(outcome)

    async def _keep_in_time(self) -> None:
        """Have the outcome on disk from when it is worth that, however long events and report take."""
        assert self._report is not None
        wait = self._place.reporter.spool_after - (self._now() - self._began_at)
        if wait <= 0:
            await self._report.keep()
        else:
            self._beside.start_after(wait, self._report.keep)

    def _log_outcome(self, outcome: Outcome, seconds: float) -> None:
        if isinstance(outcome, Failed):
            reason = outcome.message.partition("\n")[0]
            self._log.warning("failed", seconds=round(seconds, 3), error_type=outcome.error_type, error=reason)
        elif not self._is_quick:
            self._log.info("completed", seconds=round(seconds, 3))
        elif tells("debug"):
            self._log.debug("completed", seconds=round(seconds, 3))


def _close(told: Outcome | None) -> None:
    if isinstance(told, Succeeded) and isinstance(told.result, Blob):
        told.result.close()
