"""All slots, in one task group, and the current zygote.  Runs in the parent.

Tested by tests/pool/test_slot.py and by the flows.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from supervisor.attempt.attempt import Attempt
from supervisor.attempt.config import JobConfig
from supervisor.attempt.outcome import StopReason
from supervisor.concurrency.helpers import HelperTasks
from supervisor.concurrency.loop_monitor import LoopMonitor
from supervisor.job import Job
from supervisor.job_server import JobServer
from supervisor.linux.syscalls import boottime
from supervisor.pool.child_factory import ChildFactory
from supervisor.pool.claim_gate import BlockReason, ClaimGate
from supervisor.pool.poll_limit import PollLimiter
from supervisor.pool.quarantine import Quarantine
from supervisor.pool.slot import Slot
from supervisor.process.reaper import Reaper
from supervisor.process.usage import Usage
from supervisor.process.zygote import Zygote
from supervisor.reporting.report import Reporter
from supervisor.stats import Stats
from supervisor.status import ClaimStatus, SlotStatus

PARTIAL_CLAIM_WAIT = 1.0
"""Seconds that a claim waits if it leaves out actions that run as many jobs as they may."""
MAX_TRIAL_DELAY = 1.0
"""Seconds by which a due trial may be late before the pool counts as stalled."""
ALL_QUARANTINED = "every handler is quarantined for crashes: nothing is claimed but one trial job at a time"
ALL_HANDLERS_FULL = "every handler runs as many jobs as its max_concurrent allows"


class Pool:
    """Owns `workers` slots, which run until they are drained."""

    def __init__(
        self,
        workers: int,
        *,
        rules: JobConfig,
        server: JobServer,
        reporter: Reporter,
        stats: Stats,
        reaper: Reaper,
        zygote: Zygote,
    ) -> None:
        self.stats = stats
        self.zygote = zygote
        """The source of the next children."""
        self.config = rules
        """The current settings of slots and attempts."""
        self._zygote_changed = asyncio.Event()
        self._poll_limit = PollLimiter(workers)
        self._serving = asyncio.Event()
        self._capacity: asyncio.Event | None = None  # while a slot waits for it
        self._reserved: set[tuple[str, int]] = set()
        self.child_factory = ChildFactory(reaper, stats)
        self.loop_monitor = LoopMonitor()
        self.quarantine = Quarantine()
        """Jobs and handlers that are not run, because they kill their children."""
        self._new_slot = partial(Slot, server=server, reporter=reporter, poll_limit=self._poll_limit, host=self)
        self._slots = [self._new_slot(number) for number in range(1, workers + 1)]
        self._group = asyncio.TaskGroup()
        self._past_interruptions = 0  # of slots that are gone

    def __repr__(self) -> str:
        return f"<Pool {self.busy} busy of {len(self._slots)}>"

    async def successor_of(self, zygote: Zygote) -> None:
        while self.zygote is zygote:
            await self._zygote_changed.wait()

    @property
    def gate(self) -> ClaimGate:
        """Blocks claims for a reason."""
        return self._poll_limit.gate

    @property
    def size(self) -> int:
        """The number of slots, without those that leave after their job."""
        return len(self._staying)

    @property
    def _staying(self) -> list[Slot]:
        return [slot for slot in self._slots if not slot.is_leaving]

    @property
    def busy(self) -> int:
        """The number of slots with a job."""
        return sum(slot.attempt is not None for slot in self._slots)

    @property
    def running(self) -> int:
        """The number of jobs whose handler runs."""
        return sum(not attempt.is_reporting for attempt in self.attempts)

    @property
    def only_spooled_outcomes(self) -> bool:
        """True if all jobs have ended, their outcomes are on disk, and the server has their events."""
        attempts = self.attempts
        return bool(attempts) and all(attempt.is_safe_to_abandon for attempt in attempts)

    @property
    def has_unsaved_outcomes(self) -> bool:
        """True if ending the program now would lose a running job, or an outcome that is not on disk."""
        return not all(attempt.is_spooled for attempt in self.attempts)

    def hurry(self, patience: float) -> None:
        """Store the outcomes that are being reported, and wait `patience` seconds at most for their events."""
        for attempt in self.attempts:
            attempt.hurry(patience)

    @property
    def undelivered_events(self) -> int:
        """The number of events that the server has not accepted."""
        return sum(attempt.undelivered_events for attempt in self.attempts)

    @property
    def open_polls(self) -> int:
        return self._poll_limit.open

    @property
    def jobs_interrupted(self) -> int:
        """The number of jobs that a shutdown has ended."""
        return self._past_interruptions + sum(slot.jobs_interrupted for slot in self._slots)

    @property
    def longest_grace(self) -> float:
        """The longest cancel grace of a running job, in seconds."""
        return max((slot.attempt.grace for slot in self._slots if slot.attempt), default=0.0)

    def status(self, usages: Mapping[int, Usage]) -> tuple[SlotStatus, ...]:
        """Return the status of each slot; `usages` are by pid."""
        return tuple(slot.status(usages) for slot in self._slots)

    def claims(self, now: float, reason: str | None) -> ClaimStatus:
        """Return whether jobs are claimed; `reason` states why the program never claims again."""
        stats = self.stats
        is_full = self._poll_limit.open == 0 and not self.claimable_actions()
        return ClaimStatus(
            open_polls=self._poll_limit.open,
            reason=reason or self.gate.reason or self._idle_reason(is_full=is_full) or stats.claim_error,
            is_full=is_full,
            is_quarantined=self._is_quarantined,
            last_answer_age=_age(stats.answered_at, now),
            last_job_age=_age(stats.got_job_at, now),
            blocked_by=tuple(reason.value for reason in self.gate.block_reasons),
        )

    @property
    def _is_quarantined(self) -> bool:
        """True if every handler is quarantined."""
        return bool(self.zygote.actions) and set(self.zygote.actions) <= set(self.quarantine.actions())

    def _idle_reason(self, *, is_full: bool) -> str | None:
        """Return why none of the served actions is claimed."""
        if self._is_quarantined:
            return ALL_QUARANTINED
        return ALL_HANDLERS_FULL if is_full else None

    @property
    def attempts(self) -> list[Attempt]:
        """The attempts in all slots."""
        return [slot.attempt for slot in self._slots if slot.attempt is not None]

    def stall_reason(self, now: float) -> str | None:
        """Return what has stalled at `now` of the loop's clock; None while claims and heartbeats go on."""
        has_missed_room = (
            self._capacity is not None and self.gate.is_open and self.claimable_actions(boottime() - MAX_TRIAL_DELAY)
        )
        if self._poll_limit.is_stuck or has_missed_room:
            return "nobody claims though somebody may"
        return next((said for slot in self._slots if (said := slot.stall_reason(now)) is not None), None)

    def claimable_actions(self, now: float | None = None) -> tuple[str, ...]:
        """Return the actions of which one more job may run: below their `max_concurrent`, and not quarantined.

        `now` is a time of `boottime`, the current time by default; trials count that are due then.
        """
        zygote, trials = self.zygote, self.quarantine.limits(boottime() if now is None else now)
        if not zygote.concurrency_limits and not trials:
            return zygote.actions
        limits = {**zygote.concurrency_limits, **trials}  # a limit is at least 1, and a trial allows no more
        full = {action for action, most in limits.items() if self._running_count(action) >= most}
        return tuple(action for action in zygote.actions if action not in full)

    def partial_wait(self, asked: tuple[str, ...]) -> float:
        now, left_out = boottime(), set(self.zygote.actions) - set(asked)
        resting = {action for action, most in self.quarantine.limits(now).items() if not most}
        trial_in = self.quarantine.next_trial_in(left_out, now)
        return PARTIAL_CLAIM_WAIT if trial_in is None or left_out - resting else max(PARTIAL_CLAIM_WAIT, trial_in)

    def leave_out(self, action: str) -> None:
        for slot in self._slots:
            if slot.asks_for(action):
                slot.wake()

    def _running_count(self, action: str) -> int:
        return sum(slot.counts_against(action) for slot in self._slots)

    def reserve(self, job: Job) -> bool:
        attempt = (job.job_id, job.attempt)
        if attempt in self._reserved:
            return False
        self._reserved.add(attempt)
        return True

    def release(self, job: Job) -> None:
        self._reserved.discard((job.job_id, job.attempt))

    def notify_capacity(self) -> None:
        if self._capacity is not None:
            self._capacity.set()
            self._capacity = None

    async def wait_for_capacity(self) -> None:
        # One look at the clock for both questions: a trial that becomes due in between would wake no slot.
        while not self.claimable_actions(now := boottime()):
            if self._capacity is None:
                self._capacity = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.quarantine.next_trial_in(self.zygote.actions, now)):
                    await self._capacity.wait()

    async def run(self) -> None:
        """Run until every slot is drained; an error that concerns all slots ends all of them."""
        async with HelperTasks() as beside:
            beside.start(self.child_factory.maintain_spare)
            beside.start(self.loop_monitor.run)
            async with self._group:
                for slot in self._slots:
                    self._start(slot)

    def _start(self, slot: Slot) -> None:
        task = self._group.create_task(slot.run(), name=f"slot {slot.number}")
        task.add_done_callback(lambda _: self._forget(slot))

    def _forget(self, slot: Slot) -> None:
        self._past_interruptions += slot.jobs_interrupted
        self._slots.remove(slot)

    def use(self, zygote: Zygote, rules: JobConfig | None = None) -> None:
        """Take new children from `zygote`; each slot replaces its child when it has no job.

        `rules` come with new handlers, not with a zygote that replaces a dead one.
        """
        self.zygote = zygote
        self.child_factory.use(zygote)
        self._zygote_changed.set()
        self._zygote_changed = asyncio.Event()
        if rules is not None:
            self.config = rules
            self.quarantine = Quarantine()  # new handlers start without a record of crashes
        self.notify_capacity()
        self._wake_slots()

    def resize(self, workers: int) -> None:
        """Change the number of slots, to one at least; a surplus slot leaves after its job.  Not after `drain`."""
        workers = max(1, workers)
        self._poll_limit.slots = workers
        surplus = sorted(self._staying, key=lambda slot: (slot.attempt is not None, -slot.number))
        for slot in surplus[: max(0, len(surplus) - workers)]:
            slot.drain()
        for _ in range(workers - self.size):
            taken = {slot.number for slot in self._slots}
            slot = self._new_slot(next(number for number in itertools.count(1) if number not in taken))
            self._slots.append(slot)
            self._start(slot)

    def block(self, reason: BlockReason, text: str) -> None:
        """Block claims; open polls end soon, and a job that they still return is run."""
        was_open = self.gate.is_open
        self.gate.block(reason, text)
        self._serving.set()
        if was_open:
            self._wake_slots()

    def unblock(self, reason: BlockReason) -> None:
        """Remove a reason that blocks claims."""
        self.gate.unblock(reason)

    def block_for_key(self, reason: str, retry_in: float) -> None:
        """Block claims while the server refuses the key, except one trial claim in `retry_in` seconds."""
        self._poll_limit.refuse(reason, retry_in)

    def unblock_for_key(self) -> None:
        """Unblock claims, because the server accepts the key again."""
        self._poll_limit.accept()

    def drain(self) -> None:
        """Block claims for good; `run` returns when the running jobs are done."""
        for slot in self._slots:
            slot.drain()

    def recheck_leases(self) -> None:
        """End jobs whose lease ran out during a suspend, before anything else is done."""
        self.notify_capacity()  # a trial may be due, and timers stood still
        for slot in self._slots:
            if slot.attempt is not None:
                slot.attempt.recheck_lease()

    def stop(self, why: StopReason) -> None:
        """Drain at once: stop and report every running job."""
        for slot in self._slots:
            slot.stop(why)

    def mark_serving(self) -> None:
        self._serving.set()

    @property
    def is_serving(self) -> bool:
        return self._serving.is_set()

    async def wait_serving(self) -> None:
        """Wait until the server has answered a claim, or claims are blocked: the program serves from then on."""
        await self._serving.wait()

    def _wake_slots(self) -> None:
        for slot in self._slots:
            slot.wake()


def _age(since: float | None, now: float) -> float | None:
    return None if since is None else now - since
