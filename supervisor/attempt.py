"""One attempt at one job: keep its lease, watch its child, send its events, report its outcome.

Runs in the parent.  The lease is kept until the report is settled, not only until the handler ends.  Whoever awaits
`run` learns of nothing but the exceptions that end an attempt: `LeaseLost` and `AuthRevoked`.
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Callable
from typing import Any

import msgspec

from supervisor.courier import Courier
from supervisor.forwarding import SOON, Forwarding
from supervisor.job import Blob, Event, Failed, Fence, Job, Outcome, Succeeded
from supervisor.lease import Lease
from supervisor.ledger import ExitReason, Ledger
from supervisor.limits import Limits
from supervisor.outcome import CANCELLED, SHUTDOWN, Label, Stop, decide, labelled, over_memory, timed_out
from supervisor.process.child import Child, ChildDied
from supervisor.process.kernel import boottime
from supervisor.process.messages import Run
from supervisor.process.usage import Usage, tree_memory
from supervisor.report import Refused, Report, Reporter
from supervisor.server import JobServer, RateLimited, Rejected, StaleFence, Unavailable
from supervisor.status import JobStatus, Recent
from supervisor.tasks import Alongside, Helper

CANCEL_FLUSH = 1.0
"""Seconds that events may hold up the report of a cancelled job; any other job's are all delivered first."""

LONGEST_LINE = 500
LONGEST_MESSAGE = 300
"""Characters of a printed line, and of an error message, that are shown."""
LONGEST_SLEEP = 1.0
"""Seconds between two looks at the lease."""
MEMORY_INTERVAL = 0.25
"""Seconds between two looks at what a job with a memory limit uses."""
NUDGES = (0.02, 0.1, 0.0)
"""Seconds after each SIGTERM.  One is not enough: when it arrives just before the handler begins to wait in a system
call, or with the signal for the stack, which restarts the call, it would be noticed only when the call is over.
"""
STACK_TIME = 0.01
"""Seconds that a child gets to write its stack before it is killed; it takes one millisecond."""


class Attempt:
    """From a claimed job to its settled report."""

    def __init__(
        self,
        job: Job,
        *,
        fence: Fence,
        lease: Lease,
        child: Child,
        server: JobServer,
        reporter: Reporter,
        ledger: Ledger,
        limits: Limits,
        workdir: str,
        log: Any,
        mask: Callable[[str], str] = str,
        forwards_output: bool = False,
        now: Callable[[], float] = boottime,
    ) -> None:
        self.job = job
        self._fence = fence
        self._lease = lease
        self._child = child
        self._server = server
        self._reporter = reporter
        self._ledger = ledger
        self._limits = limits
        self._workdir = workdir
        self._log = log
        self._mask = mask
        self._forwarding = Forwarding(now()) if forwards_output else None
        self._now = now
        self._began_at = now()
        self._courier: Courier | None = None  # none before the first event
        self._stop: Stop | None = None
        self._stopping = False
        self._stopped_at = 0.0
        self._progress = b""
        self._ran = False
        self._child_is_spent = False
        self._told_nothing = False
        self._asked_length = False
        self._cancel_seen = asyncio.Event()
        self._report: Report | None = None
        self._reported: Outcome | None = None
        self._beside = Alongside()

    def __repr__(self) -> str:
        return f"<Attempt {self._fence} {self._lease.state.value}>"

    @property
    def was_cut(self) -> bool:
        """Whether our own shutdown has ended it before it was done."""
        return self._stop is SHUTDOWN and not isinstance(self._reported, Succeeded)

    @property
    def grace(self) -> float:
        """Seconds from SIGTERM to SIGKILL."""
        return self._limits.cancel_grace or 0.0

    @property
    def was_run(self) -> bool:
        """Whether its child was given the job and came through, or was stopped by us."""
        return self._ran

    @property
    def why_child_ended(self) -> ExitReason:
        """Why its child is of no use any more, if it is."""
        if self.killed_its_child:
            return "crash"
        return "killed" if self._stopping or self._lease.is_lost else "recycle"

    @property
    def killed_its_child(self) -> bool:
        """Whether its child died, and not because we wanted it to, or had told the kernel when to kill it."""
        is_wanted = self._stopping or (self._child.ending is not None and self._child.ending.is_at_limit)
        return self._ran and self._told_nothing and not is_wanted

    @property
    def has_left_outcome(self) -> bool:
        """Whether its outcome was not settled when it ended, and waits in the spool."""
        return self._report is not None and self._report.is_kept

    @property
    def is_beating(self) -> bool:
        """Whether its heartbeats are sent when they are due, answered or not."""
        return not self._lease.is_overdue(self._now())

    def status(self, usage: Usage | None) -> JobStatus:
        """How it goes; `usage` is what its child's process tree uses, if somebody has looked."""
        job, lease, now = self.job, self._lease, self._now()
        own_cpu = self._child.cpu_seconds
        return JobStatus(
            job_id=job.job_id,
            run_id=job.run_id,
            action=job.action,
            attempt=job.attempt,
            queue=job.queue,
            elapsed=now - self._began_at,
            timeout=self._limits.timeout,
            memory_limit=self._limits.memory,
            cpu_seconds=own_cpu + usage.others_cpu if usage and own_cpu is not None else own_cpu,
            memory=usage.memory if usage else None,
            lease_left=_finite(lease.expires_at - now),
            lease_length=_finite(lease.length),
            beat_overdue=lease.is_overdue(now),
            progress=_json(self._progress),
            last_line=self._last_line,
            stopping=self._stop.message if self._stop else None,
        )

    def ended(self, at: float) -> Recent:
        """How it went, once it is over: `at` is the time of day."""
        return Recent(
            job_id=self.job.job_id,
            action=self.job.action,
            attempt=self.job.attempt,
            outcome=self._label,
            message=_first_line(self._reported) if isinstance(self._reported, Failed) else None,
            seconds=self._now() - self._began_at,
            ended_at=at,
        )

    @property
    def _label(self) -> Label:
        if self._lease.is_lost:
            return Label.LEASE_LOST
        if self._reported is None:
            return Label.FAILED
        return labelled(self._reported, stop=self._stop, ending=self._child.ending, has_crashed=self.killed_its_child)

    @property
    def _last_line(self) -> str | None:
        line = self._child.last_line
        return None if line is None else self._mask(line)[:LONGEST_LINE]

    async def stack(self) -> str:
        """The Python stack of its child as it is now; raise `TimeoutError` when the child cannot write it."""
        return self._mask(await self._child.stack())

    async def run(self, refusal: Failed | None = None) -> None:
        """Run the job and report it; or report `refusal` instead of running it.

        In the end the child is idle, or it is dead and everything that it started as well.
        """
        async with self._beside:
            # Not only when the first beat is due: a suspend before it would be noticed that late.
            first_look_after = min(self._lease.next_beat_at - self._now(), LONGEST_SLEEP)
            self._beside.start_after(first_look_after, self._keep_lease)
            if self._limits.timeout is not None:
                self._beside.start_after(self._limits.timeout, self._time_out)
            told = refusal or await self._watch_child()
            await self._conclude(told)

    def stop(self, why: Stop) -> None:
        """Have the handler stopped, first politely; what it still says may count (see `outcome.decide`)."""
        if self._stop is None or (why.is_cancel and not self._stop.is_cancel):
            self._stop = why
        if why.is_cancel:
            self._cancel_seen.set()
        if not self._stopping and not self._child.is_idle:
            self._stopping = True
            self._stopped_at = self._now()
            self._log.info("stopping the handler", reason=why.message, grace=self.grace)
            self._child.resume()
            self._beside.start(self._terminate_then_kill)

    def look_at_lease(self) -> None:
        """It may be over: the machine was suspended."""
        self._beside.start(self._look_twice)

    @property
    def is_stopping(self) -> bool:
        """Whether its handler was asked to stop."""
        return self._stopping

    @property
    def is_reporting(self) -> bool:
        """Whether its outcome is on its way, and nothing can change it any more."""
        return self._lease.is_reporting

    def heard_event(self, event: Event) -> None:
        if event.type == "progress":
            self._progress = event.payload
        if self._courier is None:
            self._courier = Courier(
                self._fence,
                lease=self._lease,
                server=self._server,
                ledger=self._ledger,
                tap=self._child,
                beside=self._beside,
                log=self._log,
                now=self._now,
            )
        # While it is being stopped it is read on: an `emit` that waits would wait out the grace.
        self._courier.take(event, hold_back=not self._stopping)

    def heard_log(self, level: int, text: str) -> None:
        self._ledger.log_bytes["log"] += len(text)
        self._log.log(level, text, logger="handler")

    def heard_line(self, line: str) -> None:
        self._ledger.log_bytes["output"] += len(line) + 1
        self._log.info("printed", line=line)
        if self._forwarding is not None:
            if self._forwarding.is_empty:
                self._beside.start_after(SOON, self._forward_soon)
            has_room = self._courier is None or not self._courier.is_full
            self._forwarding.add(self._mask(line), self._now(), has_room=has_room)

    async def _forward_soon(self) -> None:
        self._forward()

    def _forward(self) -> None:
        """Send what was printed so far."""
        for event in self._forwarding.events() if self._forwarding else ():
            self.heard_event(event)

    @property
    def _order(self) -> Run:
        limits = self._limits
        return Run(self.job, self._fence.worker_id, self._workdir, nice=limits.nice or 0, threads=limits.threads or 1)

    async def _watch_child(self) -> Outcome | None:
        """What the child told; None when it died before."""
        self._ran = True
        if self._limits.memory is not None and not self._child.bound_memory(self._limits.memory):
            self._beside.start_after(MEMORY_INTERVAL, self._watch_memory)
        try:
            told = await self._child.run(self._order, self)
        except ChildDied:
            await self._child.kill()  # it is dead, but what it started may not be
            self._told_nothing = True
            return None
        # A child that was interrupted in the middle of somebody's code is never used again.
        self._child_is_spent = self._stopping or not told.reusable
        return told.outcome

    async def _look_twice(self) -> None:
        """Now, and when the lease ends: how long `_keep_lease` sleeps was reckoned before the suspend."""
        self._lease.check(self._now())
        await asyncio.sleep(min(self._lease.expires_at - self._now(), LONGEST_SLEEP))
        self._lease.check(self._now())

    async def _keep_lease(self) -> None:
        """Beat until the block ends; raise `LeaseLost` when the lease is lost."""
        while True:
            now = self._now()
            self._lease.check(now)
            if now >= self._lease.next_beat_at:
                await self._beat(now)
            else:
                # Never longer than the lease lives: silence must be noticed when it is due.  And never for long:
                # while the machine is suspended the loop's clock stands still, the lease's does not.
                wake_at = min(self._lease.next_beat_at, self._lease.expires_at)
                await asyncio.sleep(min(wake_at - now, LONGEST_SLEEP))

    async def _beat(self, now: float) -> None:
        try:
            directive = await self._server.heartbeat(self._fence, timeout=self._lease.beat_timeout(now))
        except StaleFence as stale:
            self._note_beat("refused", now)
            self._lease.refused(str(stale))
            self._lease.unanswered(self._now())
        except RateLimited as limited:
            self._note_beat("failed", now)
            self._lease.unanswered(self._now(), wait=limited.retry_after)
        except (Unavailable, Rejected) as error:
            self._note_beat("failed", now)
            # A refusal of the request itself (400) tells as little of the lease as no answer.
            self._log.warning("heartbeat failed", error=str(error))
            self._lease.unanswered(self._now())
        else:
            self._note_beat("accepted", now)
            self._lease.answered(directive, sent_at=now)
            if self._lease.is_cancelling:
                self.stop(CANCELLED)
            elif self._lease.length_is_guessed and not self._asked_length:
                self._asked_length = True
                self._beside.start(self._learn_lease_length)  # not here: its answer may take longer than a lease lives

    def _note_beat(self, result: str, sent_at: float) -> None:
        """Before the lease is told, for `slack` is what was left of it when the beat was sent."""
        self._ledger.beat(result, seconds=self._now() - sent_at, slack=self._lease.expires_at - sent_at)

    async def _learn_lease_length(self) -> None:
        """Ask how long the lease lives; a job that is over before its first beat does not cost a call more."""
        try:
            self._lease.learn(await self._server.lease_length(self._fence))
        except (Unavailable, RateLimited, StaleFence, Rejected):
            self._asked_length = False  # with the next beat again; a stale fence is for that one to tell

    async def _time_out(self) -> None:
        assert self._limits.timeout is not None
        self.stop(timed_out(self._limits.timeout))

    async def _watch_memory(self) -> None:
        """Stop the job once it uses more than its limit."""
        limit = self._limits.memory
        assert limit is not None
        while self._child.pid is not None:
            used = await asyncio.to_thread(tree_memory, self._child.pid, exact_above=limit)
            if used > limit:
                self.stop(over_memory(used, limit))
                return
            await asyncio.sleep(MEMORY_INTERVAL)

    async def _terminate_then_kill(self) -> None:
        self._child.dump_stack()
        await asyncio.sleep(STACK_TIME)
        kill_at = asyncio.get_running_loop().time() + self.grace
        for pause in NUDGES:
            self._child.terminate()
            await asyncio.sleep(min(pause, self.grace))
        await asyncio.sleep(kill_at - asyncio.get_running_loop().time())
        if not self._child.is_idle:
            self._log.warning("the handler did not stop within its grace: killed")
            self._child.dump_stack()
            await asyncio.sleep(STACK_TIME)
            self._child.kill_now()

    async def _deliver_events(self, heed_cancel: Helper) -> None:
        """Wait until the server has all events, which it refuses after the report."""
        if self._courier is not None and not self._courier.is_idle:
            self._beside.start(heed_cancel)
            await self._courier.delivered()

    async def _heed_cancel(self, report: Report, told: Outcome | None) -> None:
        """A cancel that is seen before the report begins, be it while the events are delivered, still counts."""
        await self._cancel_seen.wait()
        await report.replace(self._decide(told))
        await asyncio.sleep(CANCEL_FLUSH)
        assert self._courier is not None
        self._courier.give_up()

    def _decide(self, told: Outcome | None) -> Outcome:
        outcome = decide(told, stop=self._stop, ending=self._child.ending)
        # A message may quote what was printed.
        return Failed(outcome.error_type, self._mask(outcome.message)) if isinstance(outcome, Failed) else outcome

    def _note_stop(self, told: Outcome | None) -> None:
        """It was stopped, and the child is gone: how long that took, and what did it."""
        self._ledger.cancel_latency.observe(self._now() - self._stopped_at)
        ending = self._child.ending
        was_killed = ending is not None and ending.exit.signal == signal.SIGKILL
        self._ledger.kill_stages["cooperative" if told is not None else "kill" if was_killed else "term"] += 1

    async def _conclude(self, told: Outcome | None) -> None:
        """Deliver the events, then the outcome; whatever happens meanwhile, the outcome is not lost."""
        self._forward()
        report = self._report = self._reporter.report(self._fence, self.job.action, self._decide(told), self._log)
        try:
            await self._keep_in_time(report)
            if self._child_is_spent:
                await self._child.kill()
            if self._stopping:
                self._note_stop(told)
            await self._deliver_events(lambda: self._heed_cancel(report, told))
            outcome = self._decide(told)
            self._lease.check(self._now())  # after a suspend; the replay may ask the server whether it still counts
            self._lease.report_begins()  # a cancel that comes from here on comes too late
            await report.replace(outcome)
            answer = await report.deliver(lambda: self._lease.check(self._now()))  # also when it is sent again
        finally:
            await report.end(is_ours=not self._lease.is_refused)
            _close(told)
        # Nothing is awaited from here on: a lease that is over takes no heartbeat's answer.
        if isinstance(answer, Refused):
            raise self._lease.report_refused(answer.why)
        self._lease.report_accepted()
        self._reported = report.outcome
        self._log_outcome(report.outcome)

    async def _keep_in_time(self, report: Report) -> None:
        """Have the outcome on disk from when it is worth that, however long events and report take."""
        wait = self._reporter.spool_after - (self._now() - self._began_at)
        if wait <= 0:
            await report.keep()
        else:
            self._beside.start_after(wait, report.keep)

    def _log_outcome(self, outcome: Outcome) -> None:
        elapsed = round(self._now() - self._began_at, 3)
        match outcome:
            case Succeeded():
                self._log.info("completed", seconds=elapsed)
            case Failed(error_type, message):
                reason = message.partition("\n")[0]
                self._log.warning("failed", seconds=elapsed, error_type=error_type, error=reason)


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None


def _json(payload: bytes) -> msgspec.Raw | None:
    """What a child sent as JSON, if it is some: nobody has looked at it yet."""
    try:
        msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return msgspec.Raw(payload)


def _first_line(failed: Failed) -> str:
    return f"{failed.error_type}: {failed.message.partition(chr(10))[0]}"[:LONGEST_MESSAGE]


def _close(told: Outcome | None) -> None:
    if isinstance(told, Succeeded) and isinstance(told.result, Blob):
        told.result.close()
