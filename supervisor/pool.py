"""All slots, in one task group.  Runs in the parent.

It owns the slots and knows which zygote is current; what a slot does is the slot's own business.
"""

from __future__ import annotations

import asyncio

from supervisor.job import Job
from supervisor.outcome import Stop
from supervisor.polling import Polls
from supervisor.process.family import Family
from supervisor.process.zygote import Zygote
from supervisor.quarantine import Quarantine
from supervisor.report import Reporter
from supervisor.server import JobServer
from supervisor.slot import Rules, Slot


class Pool:
    """`workers` slots that run until they are drained."""

    def __init__(
        self, workers: int, *, rules: Rules, server: JobServer, reporter: Reporter, family: Family, zygote: Zygote
    ) -> None:
        self._zygote = zygote
        self._zygote_changed = asyncio.Event()
        self._polls = Polls(workers)
        self._first_answer = asyncio.Event()
        self._job_over: asyncio.Event | None = None  # while somebody waits for it
        self._taken: set[tuple[str, int]] = set()
        self._has_borne = False
        self.quarantine = Quarantine()
        """Which jobs and handlers are not to be run, for what they did to their children."""
        self._slots = [
            Slot(number, rules=rules, server=server, reporter=reporter, polls=self._polls, family=family, around=self)
            for number in range(1, workers + 1)
        ]

    def __repr__(self) -> str:
        return f"<Pool {self.busy} busy of {len(self._slots)}>"

    @property
    def zygote(self) -> Zygote:
        """Where slots get their next child from."""
        return self._zygote

    async def successor_of(self, zygote: Zygote) -> None:
        while self._zygote is zygote:
            await self._zygote_changed.wait()

    @property
    def size(self) -> int:
        return len(self._slots)

    @property
    def busy(self) -> int:
        """How many jobs run."""
        return sum(slot.attempt is not None for slot in self._slots)

    @property
    def open_polls(self) -> int:
        return self._polls.open

    @property
    def jobs_cut(self) -> int:
        """How many jobs were reported as ended by a shutdown."""
        return sum(slot.jobs_cut for slot in self._slots)

    @property
    def longest_grace(self) -> float:
        """Seconds that the running jobs may take to stop."""
        return max((slot.attempt.grace for slot in self._slots if slot.attempt), default=0.0)

    @property
    def has_borne(self) -> bool:
        return self._has_borne

    def bore(self) -> None:
        self._has_borne = True

    def open_actions(self) -> list[str]:
        """The actions of which one more job may run: all but those that are at their `max_concurrent`."""
        return [
            handler.action
            for handler in self._zygote.imported.handlers
            if handler.limits.max_concurrent is None or self._engaged(handler.action) < handler.limits.max_concurrent
        ]

    def _engaged(self, action: str) -> int:
        return sum(slot.may_run(action) for slot in self._slots)

    def take(self, job: Job) -> bool:
        attempt = (job.job_id, job.attempt)
        if attempt in self._taken:
            return False
        self._taken.add(attempt)
        return True

    def leave(self, job: Job) -> None:
        self._taken.discard((job.job_id, job.attempt))
        if self._job_over is not None:
            self._job_over.set()
            self._job_over = None

    async def job_over(self) -> None:
        if self._job_over is None:
            self._job_over = asyncio.Event()
        await self._job_over.wait()

    async def run(self) -> None:
        """Run until every slot is drained; an error that concerns all of them ends all of them."""
        async with asyncio.TaskGroup() as group:
            for slot in self._slots:
                group.create_task(slot.run(), name=f"slot {slot.number}")

    def use(self, zygote: Zygote) -> None:
        """Take new children from `zygote`; each slot swaps its child when it is next without a job."""
        self._zygote = zygote
        self._zygote_changed.set()
        self._zygote_changed = asyncio.Event()
        self.quarantine = Quarantine()  # new code deserves a new trial

    def drain(self) -> None:
        """Claim nothing new; `run` returns when the running jobs are done."""
        for slot in self._slots:
            slot.drain()

    def look_at_leases(self) -> None:
        """The machine was suspended: what is over is to end before anything else is done."""
        for slot in self._slots:
            if slot.attempt is not None:
                slot.attempt.look_at_lease()

    def stop(self, why: Stop) -> None:
        """Drain at once: have every running job stopped and reported."""
        for slot in self._slots:
            slot.stop(why)

    def answered(self) -> None:
        self._first_answer.set()

    @property
    def is_known(self) -> bool:
        return self._first_answer.is_set()

    async def first_answer(self) -> None:
        """Wait until the server has answered a claim: from here on we serve."""
        await self._first_answer.wait()
