"""Operator: everything that signals, the control socket and the page may order.  Runs in the parent.

The only state of the class is the last usage snapshot, which a thread takes when an operator asks for the status.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from supervisor.attempt.attempt import Attempt
from supervisor.attempt.outcome import cancelled_by
from supervisor.control.operator import CommandRejected
from supervisor.linux import descriptor_limit
from supervisor.linux.syscalls import boottime
from supervisor.pool.claim_gate import BlockReason
from supervisor.process.usage import Usage, tree_usage
from supervisor.reporting.spool import Spool
from supervisor.service.job_name import job_named
from supervisor.service.reload import ENDING, CoalescingQueue, Components, Reloader
from supervisor.service.shutdown import Stage
from supervisor.service.state_dump import dump
from supervisor.status import ServiceState, SlotStatus, SpoolStatus, Status, masked
from supervisor.version import __version__

log = structlog.get_logger("service")

MAX_USAGE_AGE = 0.5
"""Seconds for which one usage snapshot serves everybody who watches."""
ANY_SIZE = 1 << 62


@dataclass(frozen=True, slots=True)
class UsageSnapshot:
    """What only a thread can find out: the resources that children use, and the contents of the spool."""

    at: float = -MAX_USAGE_AGE
    usages: Mapping[int, Usage] = field(default_factory=dict)
    spool: SpoolStatus = field(default_factory=SpoolStatus)


class Operator:
    """Implements `OperatorApi`, and the orders that come as signals.

    Signals never raise; commands raise `CommandRejected`.  `by` names the requester in logs and reports.
    """

    def __init__(
        self,
        components: Components,
        reloader: Reloader,
        mask: Callable[[str], str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._components = components
        self._pool = components.pool
        self._spool = components.reporter.spool
        self._reloader = reloader
        self._mask = mask
        self._now = now
        self._started_at = now()
        self._snapshot = UsageSnapshot()
        self._looking = asyncio.Lock()
        self._dumps = CoalescingQueue(self._dump, at_the_end="")

    async def run(self) -> None:
        """Write requested state dumps until cancelled."""
        await self._dumps.run()

    # What an operator sees

    @property
    def state(self) -> ServiceState:
        """The phase of the whole program."""
        stage, gate = self._components.shutdown.stage, self._pool.gate
        if stage >= Stage.STOP:
            return "stopping"
        if stage is Stage.DRAIN:
            return "draining"
        if gate.is_blocked_by(BlockReason.PAUSED) or gate.is_blocked_by(BlockReason.STOPPED_BY_SIGNAL):
            return "paused"
        return "serving" if self._pool.is_serving else "starting"

    async def status(self) -> Status:
        async with self._looking:
            if boottime() - self._snapshot.at >= MAX_USAGE_AGE:
                slots = self._pool.status({})
                self._snapshot = await asyncio.to_thread(_look, slots, self._spool, self._now())
        return self.glance()

    def glance(self) -> Status:
        settings, pool, state = self._reloader.settings, self._pool, self.state
        status = Status(
            version=__version__,
            worker_id=settings.worker_id,
            project=settings.project,
            base_url=settings.base_url,
            pid=os.getpid(),
            now=self._now(),
            started_at=self._started_at,
            state=state,
            loop_lag=pool.loop_monitor.lag,
            claims=pool.claims(boottime(), state if self._is_ending else None),
            code=self._components.handler_loader.status,
            slots=pool.status(self._snapshot.usages),
            recent=tuple(reversed(pool.stats.recent)),
            spool=self._snapshot.spool,
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

    # Jobs

    def cancel(self, job_id: str, by: str) -> None:
        attempt = self._attempt_named(job_id)
        _refuse_when_reporting(attempt)
        attempt.log.info("a job is cancelled", by=by)
        attempt.stop(cancelled_by(by))

    # Claims

    def pause(self, by: str) -> None:
        self._refuse_when_ending()
        self._block(BlockReason.PAUSED, by)

    def resume(self, by: str) -> None:
        self._refuse_when_ending()
        self._unblock((BlockReason.PAUSED, BlockReason.STOPPED_BY_SIGNAL), by)

    def pause_by_signal(self, by: str) -> None:
        """Block claims until `resume_by_signal` or `resume`."""
        if not self._ignores("pause", by):
            self._block(BlockReason.STOPPED_BY_SIGNAL, by)

    def resume_by_signal(self, by: str) -> None:
        """Unblock claims, but keep a `pause`: the sender of SIGCONT may not know of it.

        systemd sends SIGCONT after each SIGTERM, and a shell sends it for each `fg`: claims may not be blocked at all.
        """
        self._unblock((BlockReason.STOPPED_BY_SIGNAL,), by)

    def resize(self, by: str, more: int) -> None:
        """Add so many slots, or remove them if negative; one slot always stays."""
        if self._ignores("resize", by):
            return
        before = self._pool.size
        if more > 0 and (sentence := descriptor_limit.shortage(before + more)):
            log.warning("not resized", by=by, reason=sentence)
            return
        self._pool.resize(before + more)
        if self._pool.size == before:
            log.info("not resized: one child is the least", by=by)
        else:
            log.info("resized", by=by, children=self._pool.size, before=before)

    # The program

    def drain(self, by: str) -> None:
        log.info("told to drain", by=by)
        self._components.shutdown.advance(Stage.DRAIN)

    async def reload(self, by: str) -> None:
        error = await self._reloader.request(by)
        if error is not None:
            raise CommandRejected(self._mask(error))

    def request_reload(self, by: str) -> None:
        """Reload without waiting for the result, which is logged."""
        self._reloader.request(by)

    def dump(self, by: str) -> None:
        """Log the state of all tasks and jobs."""
        self._dumps.ask(by)

    def _block(self, reason: BlockReason, by: str) -> None:
        if self._pool.gate.is_blocked_by(reason):
            return
        # Open claims go on: the server may have leased a job to one already.
        log.warning("paused: nothing new is claimed", by=by, open_claims=self._pool.open_polls)
        self._pool.block(reason, f"paused by {by} since {time.strftime('%H:%M:%S UTC', time.gmtime())}")

    def _unblock(self, reasons: Sequence[BlockReason], by: str) -> None:
        gate = self._pool.gate
        if not any(map(gate.is_blocked_by, reasons)):
            return
        for reason in reasons:
            self._pool.unblock(reason)
        if gate.is_blocked_by(BlockReason.PAUSED):
            log.warning("still paused: nothing is claimed until `mobius-supervisor resume`", by=by)
        else:
            log.warning("resumed", by=by)

    def _refuse_when_ending(self) -> None:
        if self._is_ending:
            raise CommandRejected(ENDING)

    def _ignores(self, request: str, by: str) -> bool:
        if self._is_ending:
            log.info("request ignored: the program is ending", request=request, by=by)
        return self._is_ending

    @property
    def _is_ending(self) -> bool:
        return self._components.shutdown.has_begun

    async def _dump(self, _: str) -> None:
        await dump(self._pool.attempts)

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
