"""What an operator sees and asks of the running program, from wherever it comes.  Runs in the parent.

It owns nothing but the last look at what children use and at the spool: that takes threads and is done only when
somebody wants to know.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from supervisor.attempt.attempt import Attempt
from supervisor.attempt.outcome import cancelled_by
from supervisor.control.operator import CommandRejected
from supervisor.linux.syscalls import boottime
from supervisor.pool.pool import Pool
from supervisor.process.usage import Usage, tree_usage
from supervisor.reporting.spool import Spool
from supervisor.service.job_name import job_named
from supervisor.settings.settings import Settings
from supervisor.status import CodeStatus, ServiceState, SlotStatus, SpoolStatus, Status, masked
from supervisor.version import __version__

MAX_USAGE_AGE = 0.5
"""Seconds for which a look at the children and the spool counts, however many watch."""
ANY_SIZE = 1 << 62
ENDING = ("draining", "stopping")


class Course(Protocol):
    """Where the program as a whole is going, and how to change that: `operations`.  Only `reload` raises."""

    @property
    def state(self) -> ServiceState: ...
    @property
    def code(self) -> CodeStatus: ...
    def pause(self, by: str) -> None: ...
    def resume(self, by: str) -> None: ...
    def drain(self, by: str) -> None: ...
    async def reload(self, by: str) -> None: ...


@dataclass(frozen=True, slots=True)
class UsageSnapshot:
    """What is not known without looking: what children use, and what lies in the spool."""

    at: float = -MAX_USAGE_AGE
    usages: Mapping[int, Usage] = field(default_factory=dict)
    spool: SpoolStatus = field(default_factory=SpoolStatus)


class Operator:
    """Implements `steering.Steering`."""

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        spool: Spool,
        course: Course,
        mask: Callable[[str], str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._spool = spool
        self._course = course
        self._mask = mask
        self._now = now
        self._started_at = now()
        self._look = UsageSnapshot()
        self._looking = asyncio.Lock()

    async def status(self) -> Status:
        async with self._looking:
            if boottime() - self._look.at >= MAX_USAGE_AGE:
                slots = self._pool.status({})
                self._look = await asyncio.to_thread(_look, slots, self._spool, self._now())
        return self.glance()

    def glance(self) -> Status:
        settings, pool = self._settings, self._pool
        state = self._course.state
        status = Status(
            version=__version__,
            worker_id=settings.worker_id,
            project=settings.project,
            base_url=settings.base_url,
            pid=os.getpid(),
            now=self._now(),
            started_at=self._started_at,
            state=state,
            loop_lag=self._pool.loop_monitor.lag,
            claims=pool.claims(boottime(), state if state in ENDING else None),
            code=self._course.code,
            slots=pool.status(self._look.usages),
            recent=tuple(reversed(pool.stats.recent)),
            spool=self._look.spool,
            quarantined=tuple(pool.quarantine.active(boottime())),
            shortage=pool.child_factory.shortage,
            quarantined_actions=pool.quarantine.actions(),
            standstill=pool.stall_reason(asyncio.get_running_loop().time()),
        )
        hidden: Status = masked(status, self._mask)
        return hidden

    async def stack(self, job_id: str) -> str:
        attempt = self._attempt_named(job_id)
        try:
            return await attempt.stack()
        except TimeoutError:
            _refuse_when_reporting(attempt)
            raise CommandRejected(
                f"the process of {attempt.job.job_id} does not write its stack: it is stopped, waits for a disk, or "
                "has taken SIGUSR1, by which it is asked, for itself"
            ) from None

    def cancel(self, job_id: str, by: str) -> None:
        attempt = self._attempt_named(job_id)
        _refuse_when_reporting(attempt)
        attempt.log.info("a job is cancelled", by=by)
        attempt.stop(cancelled_by(by))

    def pause(self, by: str) -> None:
        self._refuse_when_ending()
        self._course.pause(by)

    def resume(self, by: str) -> None:
        self._refuse_when_ending()
        self._course.resume(by)

    def drain(self, by: str) -> None:
        self._course.drain(by)

    async def reload(self, by: str) -> None:
        await self._course.reload(by)

    def _refuse_when_ending(self) -> None:
        if self._course.state in ENDING:
            raise CommandRejected("the program is ending")

    def _attempt_named(self, name: str) -> Attempt:
        attempts = self._pool.attempts
        job = job_named(name, [attempt.job for attempt in attempts])
        return next(attempt for attempt in attempts if attempt.job is job)


def _refuse_when_reporting(attempt: Attempt) -> None:
    if attempt.is_reporting:
        raise CommandRejected(f"{attempt.job.job_id} has ended and is being reported")


def _look(slots: Sequence[SlotStatus], spool: Spool, now: float) -> UsageSnapshot:
    """Look at every child, and into the spool; takes milliseconds, in a thread."""
    limits = {slot.pid: slot.job.memory_limit if slot.job else None for slot in slots if slot.pid is not None}
    usages = {pid: tree_usage(pid, exact_above=limit or ANY_SIZE) for pid, limit in limits.items()}
    return UsageSnapshot(boottime(), usages, spool.measure(now))
