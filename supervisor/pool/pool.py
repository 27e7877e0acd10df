"""All slots, in one task group.  Runs in the parent.

It owns the slots and knows which zygote is current; what a slot does is the slot's own business.
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
"""Seconds that a claim waits when it leaves out actions that are full."""
MAX_TRIAL_DELAY = 1.0
"""Seconds that a trial which is due may be late before that counts as a standstill."""
ALL_QUARANTINED = "every handler is quarantined for crashes: nothing is claimed but one trial job at a time"
ALL_HANDLERS_FULL = "every handler runs as many jobs as its max_concurrent allows"


class Pool:
    """`workers` slots that run until they are drained."""

    def __init__(
        self,
        workers: int,
        *,
        rules: JobConfig,
        server: JobServer,
        reporter: Reporter,
        ledger: Stats,
        family: Reaper,
        zygote: Zygote,
    ) -> None:
        self.stats = ledger
        self.zygote = zygote
        """Where slots get their next child from."""
        self.config = rules
        """The settings that slots go by."""
        self._zygote_changed = asyncio.Event()
        self._poll_limit = PollLimiter(workers)
        self._serving = asyncio.Event()
        self._capacity: asyncio.Event | None = None  # while somebody waits for it
        self._reserved: set[tuple[str, int]] = set()
        self.child_factory = ChildFactory(family, ledger)
        self.loop_monitor = LoopMonitor()
        self.quarantine = Quarantine()
        """Which jobs and handlers are not to be run, for what they did to their children."""
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
        """Whether anything is claimed, and why not."""
        return self._poll_limit.gate

    @property
    def size(self) -> int:
        """How many slots there are, without those that only finish their job."""
        return len(self._staying)

    @property
    def _staying(self) -> list[Slot]:
        return [slot for slot in self._slots if not slot.is_leaving]

    @property
    def busy(self) -> int:
        """How many slots have a job."""
        return sum(slot.attempt is not None for slot in self._slots)

    @property
    def running(self) -> int:
        """How many jobs run, and are not only reported."""
        return sum(not attempt.is_reporting for attempt in self.attempts)

    @property
    def only_spooled_outcomes(self) -> bool:
        """Whether there is nothing but outcomes on disk, of jobs whose events the server has."""
        attempts = self.attempts
        return bool(attempts) and all(attempt.is_safe_to_abandon for attempt in attempts)

    @property
    def has_unsaved_outcomes(self) -> bool:
        """Whether a job runs, or has an outcome that is not on disk: an end now would be the end of that."""
        return not all(attempt.is_spooled for attempt in self.attempts)

    def hurry(self, patience: float) -> None:
        """The program ends: what is reported is to be on disk, and events wait for the server no longer than that."""
        for attempt in self.attempts:
            attempt.hurry(patience)

    @property
    def undelivered_events(self) -> int:
        """How many events of jobs here the server does not have."""
        return sum(attempt.undelivered_events for attempt in self.attempts)

    @property
    def open_polls(self) -> int:
        return self._poll_limit.open

    @property
    def jobs_interrupted(self) -> int:
        """How many jobs were reported as ended by a shutdown."""
        return self._past_interruptions + sum(slot.jobs_interrupted for slot in self._slots)

    @property
    def longest_grace(self) -> float:
        """Seconds that the running jobs may take to stop."""
        return max((slot.attempt.grace for slot in self._slots if slot.attempt), default=0.0)

    def status(self, usages: Mapping[int, Usage]) -> tuple[SlotStatus, ...]:
        """What is in each slot; `usages` are by pid, of the children at which somebody has looked."""
        return tuple(slot.status(usages) for slot in self._slots)

    def claims(self, now: float, reason: str | None) -> ClaimStatus:
        """Whether jobs are asked for; `reason` is why they never will be again."""
        ledger = self.stats
        is_full = self._poll_limit.open == 0 and not self.claimable_actions()
        return ClaimStatus(
            open_polls=self._poll_limit.open,
            reason=reason or self.gate.reason or self._idle_reason(is_full=is_full) or ledger.claim_error,
            is_full=is_full,
            is_quarantined=self._is_quarantined,
            last_answer_age=_age(ledger.answered_at, now),
            last_job_age=_age(ledger.got_job_at, now),
            blocked_by=tuple(bar.value for bar in self.gate.block_reasons),
        )

    @property
    def _is_quarantined(self) -> bool:
        """Whether every handler is quarantined."""
        return bool(self.zygote.actions) and set(self.zygote.actions) <= set(self.quarantine.actions())

    def _idle_reason(self, *, is_full: bool) -> str | None:
        """Why the actions that are served are not claimed."""
        if self._is_quarantined:
            return ALL_QUARANTINED
        return ALL_HANDLERS_FULL if is_full else None

    @property
    def attempts(self) -> list[Attempt]:
        """What runs now."""
        return [slot.attempt for slot in self._slots if slot.attempt is not None]

    def stall_reason(self, now: float) -> str | None:
        """What does not move that should, at a time of the loop's clock; None when claims and heartbeats go on."""
        has_missed_room = self._capacity is not None and self.gate.is_open and self.claimable_actions(MAX_TRIAL_DELAY)
        if self._poll_limit.is_stuck or has_missed_room:
            return "nobody claims though somebody may"
        return next((said for slot in self._slots if (said := slot.stall_reason(now)) is not None), None)

    def claimable_actions(self, trial_delay: float = 0.0) -> tuple[str, ...]:
        """The actions of which one more job may run: not those at their `max_concurrent`, nor quarantined ones.

        A trial counts from `trial_delay` seconds after it was due.
        """
        zygote, trials = self.zygote, self.quarantine.limits(boottime() - trial_delay)
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
        while not self.claimable_actions():
            if self._capacity is None:
                self._capacity = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.quarantine.next_trial_in(self.zygote.actions, boottime())):
                    await self._capacity.wait()

    async def run(self) -> None:
        """Run until every slot is drained; an error that concerns all of them ends all of them."""
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
        """Take new children from `zygote`; each slot swaps its child when it is next without a job.

        `rules` come with new code, not with a zygote that takes the place of a dead one.
        """
        self.zygote = zygote
        self.child_factory.use(zygote)
        self._zygote_changed.set()
        self._zygote_changed = asyncio.Event()
        if rules is not None:
            self.config = rules
            self.quarantine = Quarantine()  # new code deserves a new trial
        self.notify_capacity()
        self._wake_slots()

    def resize(self, workers: int) -> None:
        """Have so many slots, at least one; one too many leaves when it is without a job.  Not after `drain`."""
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

    def block(self, bar: BlockReason, reason: str) -> None:
        """Claim nothing for this cause; polls that are open end soon, and a job that they still bring is run."""
        was_open = self.gate.is_open
        self.gate.block(bar, reason)
        self._serving.set()
        if was_open:
            self._wake_slots()

    def unblock(self, bar: BlockReason) -> None:
        """This cause is over."""
        self.gate.unblock(bar)

    def block_for_key(self, reason: str, retry_in: float) -> None:
        """Claim nothing while the server refuses the key, but for one claim in `retry_in` seconds that asks again."""
        self._poll_limit.refuse(reason, retry_in)

    def unblock_for_key(self) -> None:
        """The server accepts the key again."""
        self._poll_limit.accept()

    def drain(self) -> None:
        """Claim nothing new; `run` returns when the running jobs are done."""
        for slot in self._slots:
            slot.drain()

    def recheck_leases(self) -> None:
        """The machine was suspended: what is over is to end before anything else is done."""
        self.notify_capacity()  # a trial may be due, and timers stood still
        for slot in self._slots:
            if slot.attempt is not None:
                slot.attempt.recheck_lease()

    def stop(self, why: StopReason) -> None:
        """Drain at once: have every running job stopped and reported."""
        for slot in self._slots:
            slot.stop(why)

    def mark_serving(self) -> None:
        self._serving.set()

    @property
    def is_serving(self) -> bool:
        return self._serving.is_set()

    async def wait_serving(self) -> None:
        """Wait until the server has answered a claim, or there is a cause to claim nothing: from here on we serve."""
        await self._serving.wait()

    def _wake_slots(self) -> None:
        for slot in self._slots:
            slot.wake()


def _age(since: float | None, now: float) -> float | None:
    return None if since is None else now - since
