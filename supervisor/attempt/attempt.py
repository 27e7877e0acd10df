"""One attempt at one job: keeps its lease, watches its child, sends its events, reports its outcome.

Runs in the parent.  The lease is kept until the report is settled, not only until the handler ends.  `run` raises only
what ends an attempt: `LeaseLost` and `AuthRevoked`.  Tested by tests/test_model.py and tests/pool/test_slot.py.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from supervisor.attempt.config import JobConfig, SlotResources
from supervisor.attempt.event_sender import EventSender
from supervisor.attempt.heartbeats import HeartbeatLoop, recheck_lease
from supervisor.attempt.job_output import JobOutput
from supervisor.attempt.lease import Lease, LeaseLost
from supervisor.attempt.no_child import NO_CHILD, NoChild
from supervisor.attempt.outcome import (
    CANCELLED,
    NOT_BEGUN,
    SHUTDOWN,
    OutcomeLabel,
    StopReason,
    decide,
    label_for,
    over_memory,
    timed_out,
)
from supervisor.attempt.status import first_line, job_status
from supervisor.attempt.stop import StopRequest, terminate_then_kill
from supervisor.concurrency.helpers import HelperTasks
from supervisor.ipc.messages import Run
from supervisor.job import Blob, Event, Failed, Fence, Job, Outcome, Succeeded
from supervisor.limits import Limits
from supervisor.linux.syscalls import boottime
from supervisor.logs.log import JobLog, is_enabled
from supervisor.process.child import Child
from supervisor.process.exit_watch import ChildDied, ChildUnkillable
from supervisor.process.usage import Usage, tree_memory
from supervisor.reporting.report import Rejected, Report
from supervisor.stats import ExitReason
from supervisor.status import JobStatus, Recent

CANCEL_FLUSH_TIMEOUT = 1.0
"""Seconds by which events may delay the report of a cancelled job; events of other jobs are all delivered first."""

QUICK_JOB_TIME = 1.0
"""Seconds; a shorter job costs no line in the log, no check of its lease and no heartbeat."""
MEMORY_CHECK_INTERVAL = 0.25
"""Seconds between two measurements of a job with a memory limit."""

AcquireChild = Callable[[], Coroutine[Any, Any, Child]]
"""Returns a child that can run the job, when there is one."""


class Attempt:
    """Runs a claimed job, from the claim to the settled report."""

    # State that most attempts never have, or only at their end: as class attributes it costs a short job nothing.
    has_succeeded = False
    """True if the server has accepted a result."""
    has_workdir = True
    """False if the child reported that the job made no folder."""
    _seconds: float | None = None  # from the claim to the end of the handler
    _output: JobOutput | None = None  # from the handler's first event, log record or line
    _ran = False
    _child_is_spent = False
    _child_died = False
    _is_quick = True  # so far
    _child_wait: asyncio.Task[Child] | None = None  # while the attempt waits for a child
    _handler_outcome: Outcome | None = None
    _is_delivering = False  # while the last events are sent
    _is_hurried = False  # because the program ends
    _report: Report | None = None
    _reported: Outcome | None = None

    def __init__(
        self,
        job: Job,
        place: SlotResources,
        rules: JobConfig,
        limits: Limits,
        *,
        lease: Lease,
        child: Child | None,
        claimed_at: float,
        now: Callable[[], float] = boottime,
    ) -> None:
        """`claimed_at` is a time of the clock `now`; `child` is None if `run` has to wait for one."""
        self.job = job
        self._fence = Fence(rules.worker_id, job.job_id, job.attempt)
        self._lease = lease
        self._child: Child | NoChild = NO_CHILD if child is None else child
        self._resources = place
        self._config = rules
        self._limits = limits
        self._log: Any = JobLog(place.number, job, None if child is None else child.pid)
        self._now = now
        self._began_at = claimed_at
        self._stop_request = StopRequest()
        self._helpers = HelperTasks(place.alarms)

    def __repr__(self) -> str:
        return f"<Attempt {self._fence} {self._lease.state.value}>"

    @property
    def log(self) -> Any:
        """A logger whose lines name the job and the slot."""
        return self._log

    @property
    def was_interrupted(self) -> bool:
        """True if the supervisor's shutdown ended the job before it succeeded."""
        return self._stop_request.reason is SHUTDOWN and not self.has_succeeded

    @property
    def grace(self) -> float:
        """Seconds from SIGTERM to SIGKILL."""
        return self._limits.cancel_grace or 0.0

    @property
    def has_run(self) -> bool:
        """True if a child began the job, and the lease was not lost."""
        return self._ran and not self._lease.is_lost

    @property
    def why_child_ended(self) -> ExitReason:
        """The reason for the end of the child, if it has ended."""
        if self.has_crashed_child:
            return "crash"
        return "killed" if self._stop_request.is_under_way or self._lease.is_lost else "recycle"

    @property
    def has_crashed_child(self) -> bool:
        """True if the child died although nothing stopped the job, and no limit of the kernel was reached."""
        if not self._child_died or self._stop_request.is_under_way or self._lease.is_lost:
            return False
        return self._child.exit_report is None or not self._child.exit_report.is_at_limit

    @property
    def needs_failure_report(self) -> bool:
        """True if the attempt still owns the job, and no outcome of it is on disk or settled."""
        return not (self.is_spooled or self._lease.is_lost or self._lease.is_released)

    @property
    def is_spooled(self) -> bool:
        """True if the outcome is on disk, from where the next program can send it."""
        return self._report is not None and self._report.is_spooled

    @property
    def renewed_at(self) -> float:
        """Time of the last renewal of the lease."""
        return self._lease.renewed_at

    @property
    def has_outcome(self) -> bool:
        """True if the attempt has an outcome to report."""
        return self._report is not None

    @property
    def is_safe_to_abandon(self) -> bool:
        """True if ending the attempt now loses nothing: the server has its events, and its outcome is on disk."""
        return self.is_spooled and (self._event_sender is None or self._event_sender.is_idle)

    def is_beating(self, now: float) -> bool:
        """True if heartbeats are sent when they are due, or none are due any more."""
        return self._helpers.is_over or self._lease.is_lost or not self._lease.is_overdue(now)

    def status(self, usage: Usage | None) -> JobStatus:
        """Return the status; `usage` is that of the child's process tree, if it was measured."""
        now = self._now()
        return job_status(
            self.job,
            child=self._child,
            lease=self._lease,
            limits=self._limits,
            elapsed=self._duration(now),
            progress=self._output.progress if self._output is not None else b"",
            stop=self._stop_request.reason,
            beat_overdue=not self.is_beating(now),
            usage=usage,
            mask=self._config.mask,
            now=now,
        )

    def recent_entry(self, at: float) -> Recent:
        """Return the entry for the list of recent outcomes; `at` is the wall-clock time."""
        return Recent(
            job_id=self.job.job_id,
            action=self.job.action,
            attempt=self.job.attempt,
            outcome=self._label,
            message=first_line(self._reported) if isinstance(self._reported, Failed) else None,
            seconds=self._duration(self._now()),
            ended_at=at,
        )

    def _duration(self, now: float) -> float:
        """Return the seconds from the claim to the end of the handler, or to `now`."""
        return now - self._began_at if self._seconds is None else self._seconds

    @property
    def _label(self) -> OutcomeLabel:
        if self.has_succeeded:
            return OutcomeLabel.COMPLETED
        if self._reported is None:
            return OutcomeLabel.LEASE_LOST if self._lease.is_lost else OutcomeLabel.FAILED
        stop, ending = self._stop_request.reason, self._child.exit_report
        return label_for(self._reported, stop=stop, ending=ending, has_crashed=self.has_crashed_child)

    async def stack(self) -> str:
        """Return the current Python stack of the child; raise `TimeoutError` if the child does not write it."""
        return self._config.mask(await self._child.stack())

    async def run(self, refusal: Failed | None = None, child_for_it: AcquireChild | None = None) -> None:
        """Run the job and report it, or report `refusal` instead of running it.

        `child_for_it` supplies a child if there is none yet.  In the end the child is idle, or it and its descendants
        are dead.
        """
        async with self._helpers:
            # Earlier than the first heartbeat: a suspend before it would be noticed too late.
            quick = min(QUICK_JOB_TIME, self._resources.reporter.spool_after or QUICK_JOB_TIME)
            first_look_after = min(quick, self._lease.next_beat_at - self._began_at)
            if first_look_after <= 0:  # the answer with the job waited during a suspend
                self._check_lease()
            self._helpers.start_after(first_look_after, self._start_monitoring)
            if child_for_it is not None and refusal is None:
                await self._wait_for_child(child_for_it)
            told = refusal or await self._run_handler()
            await self._deliver(told)

    def stop(self, why: StopReason) -> None:
        """Stop the handler, at first with SIGTERM; its result may still count (see `outcome.decide`)."""
        if not self._stop_request.accept(why, has_ended=self.is_reporting):
            return
        if self._child_wait is not None:
            self._child_wait.cancel()
        if self._is_delivering:
            self._helpers.start(self._apply_late_cancel)
        if self._child.is_busy and not self._stop_request.is_under_way:
            self._stop_request.started_at = self._now()
            self._log.info("stopping the handler", reason=why.message, grace=self.grace)
            self._child.resume()
            self._helpers.start(lambda: terminate_then_kill(self._child, self.grace, self._log))

    def recheck_lease(self) -> None:
        """Check the lease, which may have run out during a suspend."""
        self._helpers.start(lambda: recheck_lease(self._lease, self._now))

    def hurry(self, patience: float) -> None:
        """Store the outcome, because the program ends; then drop events if the server takes none for `patience` s."""
        report, courier = self._report, self._event_sender
        if report is None:
            return
        if not self._is_hurried:
            self._is_hurried = True
            self._helpers.start(report.spool)
        elif report.is_spooled and courier is not None and courier.has_stalled(patience):
            courier.abort("the program ends")

    @property
    def undelivered_events(self) -> int:
        """The number of events that the server has not accepted."""
        return 0 if self._event_sender is None else self._event_sender.undelivered

    @property
    def is_stopping(self) -> bool:
        """True if the handler was asked to stop."""
        return self._stop_request.is_under_way

    @property
    def is_reporting(self) -> bool:
        """True if the handler has ended, or does not run at all, and only the report is left."""
        return self._report is not None or (self._ran and not self._child.is_busy)

    def on_event(self, event: Event) -> None:
        self._open_output.on_event(event)

    def on_log(self, level: int, text: str, logger: str) -> None:
        self._open_output.on_log(level, text, logger)

    def on_line(self, line: str) -> None:
        self._open_output.on_line(line)

    @property
    def _open_output(self) -> JobOutput:
        if self._output is None:
            self._output = JobOutput(
                self._new_event_sender,
                rules=self._config,
                stats=self._resources.reporter.stats,
                stopping=self._stop_request,
                beside=self._helpers,
                log=self._log,
                now=self._now,
            )
        return self._output

    def _new_event_sender(self) -> EventSender:
        return EventSender(
            self._fence,
            lease=self._lease,
            server=self._resources.reporter.server,
            stats=self._resources.reporter.stats,
            tap=self._child,
            beside=self._helpers,
            log=self._log,
            now=self._now,
        )

    @property
    def _event_sender(self) -> EventSender | None:
        """Sends the events; None before the first event."""
        return None if self._output is None else self._output.event_sender

    @property
    def _order(self) -> Run:
        nice, threads = self._limits.nice or 0, self._limits.threads or 1
        return Run(self.job, self._fence.worker_id, self._resources.workdir, nice=nice, threads=threads)

    async def _wait_for_child(self, child_for_it: AcquireChild) -> None:
        """Wait until there is a child for the job, or the job is stopped; heartbeats go on meanwhile."""
        # In a loop: a child may die between its start and its first job.
        while not self._child.is_idle and self._stop_request.reason is None:
            self._child_wait = self._helpers.create_task(child_for_it())
            await asyncio.wait([self._child_wait])
            if not self._child_wait.cancelled():
                self._child = self._child_wait.result()
                self._log = JobLog(self._resources.number, self.job, self._child.pid)
            self._child_wait = None
            self._check_lease()

    async def _run_handler(self) -> Outcome | None:
        """Return the outcome that the child reported; None if it died before."""
        if self._stop_request.reason is not None:
            return NOT_BEGUN
        self._ran = True
        if not self._is_quick:  # `_start_monitoring` ran before there was a child
            self._helpers.start(self._child.ensure_picked_up)
        if self._limits.timeout is not None:
            self._helpers.start_after(self._limits.timeout, self._time_out)
        if self._limits.memory is not None and not self._child.set_memory_limit(self._limits.memory):
            self._helpers.start_after(MEMORY_CHECK_INTERVAL, self._watch_memory)
        try:
            told = await self._child.run(self._order, self)
        except ChildDied:
            await self._child.kill()  # its descendants may still run
            self._child_died = True
            return None
        except ChildUnkillable as lost:  # it may still run: the server gets no report, and grants the job again later
            raise LeaseLost(f"{lost}: the job is left to its lease") from lost
        # A child whose handler was interrupted at an arbitrary point is never used again.
        self._child_is_spent = self._stop_request.is_under_way or not told.reusable
        self.has_workdir = told.has_workdir
        return told.outcome

    async def _start_monitoring(self) -> None:
        """Log and keep the lease of a job that is not over within `QUICK_JOB_TIME`."""
        self._is_quick = False
        self._log.info("being reported" if self.is_reporting else "running", seconds=self._elapsed)
        if self._report is not None:
            self._helpers.start(self._spool_when_due)
        if self._ran:
            self._helpers.start(self._child.ensure_picked_up)
        heart = HeartbeatLoop(
            self._fence,
            lease=self._lease,
            server=self._resources.reporter.server,
            stats=self._resources.reporter.stats,
            beside=self._helpers,
            on_cancel=lambda: self.stop(CANCELLED),
            on_lost=lambda: self._child.kill_now(),  # there may be none yet
            log=self._log,
            now=self._now,
        )
        await heart.run()

    @property
    def _elapsed(self) -> float:
        return round(self._now() - self._began_at, 3)

    async def _time_out(self) -> None:
        assert self._limits.timeout is not None
        self.stop(timed_out(self._limits.timeout))

    async def _watch_memory(self) -> None:
        """Stop the job when it uses more memory than its limit, where no control group enforces the limit."""
        limit = self._limits.memory
        assert limit is not None
        while self._child.is_busy and self._child.pid is not None:
            used = await asyncio.to_thread(tree_memory, self._child.pid, exact_above=limit)
            if used > limit:
                self.stop(over_memory(used, limit))
                return
            await asyncio.sleep(MEMORY_CHECK_INTERVAL)

    async def _deliver_events(self) -> None:
        """Wait until the server has all events: it rejects events after the report."""
        if (courier := self._event_sender) is not None and not courier.is_idle:
            self._is_delivering = True
            if self._stop_request.is_by_cancel:
                self._helpers.start(self._apply_late_cancel)
            await courier.flush()
            self._is_delivering = False

    async def _apply_late_cancel(self) -> None:
        """Replace the outcome after a cancel that arrives before the report begins, then drop events that are late."""
        assert self._report is not None
        assert self._event_sender is not None
        await self._report.replace(self._decide(self._handler_outcome))
        await asyncio.sleep(CANCEL_FLUSH_TIMEOUT)
        self._event_sender.abort("the job is cancelled")

    def _decide(self, told: Outcome | None) -> Outcome:
        outcome = decide(told, stop=self._stop_request.reason, ending=self._child.exit_report)
        # A message may quote secrets that the handler printed.
        return (
            Failed(outcome.error_type, self._config.mask(outcome.message)) if isinstance(outcome, Failed) else outcome
        )

    def _record_stop(self, since: float, told: Outcome | None) -> None:
        """Count how long a stop took, and which step ended the child."""
        stats = self._resources.reporter.stats
        stats.cancel_latency.observe(self._now() - since)
        ending = self._child.exit_report
        was_killed = ending is not None and ending.exit.signal == signal.SIGKILL
        stats.kill_stages["cooperative" if told is not None else "kill" if was_killed else "term"] += 1

    async def _deliver(self, told: Outcome | None) -> None:
        """Deliver the events, then the outcome.  No error on the way loses the outcome."""
        if self._output is not None:
            self._output.flush()
        self._seconds = self._now() - self._began_at
        self._handler_outcome = told
        report = self._report = self._resources.reporter.report(
            self._fence, self.job.action, self._decide(told), self._log
        )
        try:
            if self._is_plain:
                self._lease.begin_report()
            else:
                await self._prepare_report(report, told)
            # Checked before each send: after a suspend the replay asks the server whether the outcome still counts.
            answer = await report.deliver(self._check_lease)
        finally:
            try:
                await report.end(is_ours=not self._lease.is_refused)
            finally:
                _close(told)
        # No await from here on: a heartbeat's answer must not reach a lease that has ended.
        if isinstance(answer, Rejected):
            raise self._lease.report_refused(answer.why)
        self._lease.report_accepted()
        self._reported = report.outcome
        self.has_succeeded = isinstance(report.outcome, Succeeded)
        self._log_outcome(report.outcome, self._seconds)

    def _check_lease(self) -> None:
        self._lease.check(self._now())

    @property
    def _is_plain(self) -> bool:
        """True if the report can begin at once, as with most jobs."""
        if self._output is not None or self._child_is_spent or self._stop_request.is_under_way:
            return False
        return self._is_quick and self._resources.reporter.spool_after > 0  # otherwise the outcome is stored first

    async def _prepare_report(self, report: Report, told: Outcome | None) -> None:
        """Store the outcome, end the child and deliver events; a cancel that arrives meanwhile still counts."""
        if not self._is_quick or self._resources.reporter.spool_after == 0:
            await self._spool_when_due()
        if self._child_is_spent:
            await self._child.kill()
        if self._stop_request.started_at is not None:
            self._record_stop(self._stop_request.started_at, told)
        await self._deliver_events()
        outcome = self._decide(told)
        self._lease.begin_report()  # a later cancel has no effect
        await report.replace(outcome)

    async def _spool_when_due(self) -> None:
        """Store the outcome once the job has lasted `spool_after` seconds, however long events and report take."""
        assert self._report is not None
        wait = self._resources.reporter.spool_after - (self._now() - self._began_at)
        if wait <= 0:
            await self._report.spool()
        else:
            self._helpers.start_after(wait, self._report.spool)

    def _log_outcome(self, outcome: Outcome, seconds: float) -> None:
        if isinstance(outcome, Failed):
            reason = outcome.message.partition("\n")[0]
            self._log.warning("failed", seconds=round(seconds, 3), error_type=outcome.error_type, error=reason)
        elif not self._is_quick:
            self._log.info("completed", seconds=round(seconds, 3))
        elif is_enabled("debug"):
            self._log.debug("completed", seconds=round(seconds, 3))


def _close(told: Outcome | None) -> None:
    if isinstance(told, Succeeded) and isinstance(told.result, Blob):
        told.result.close()
