"""Where slots get their children from, and how those end; with one kept ready for whichever slot needs one next.

Runs in the parent.  A birth takes some milliseconds, in which a slot can run nothing; so a child that was killed, or
has had enough, is replaced at once.
"""

from __future__ import annotations

import asyncio

import structlog

from supervisor.linux.syscalls import boottime
from supervisor.process.child import Child
from supervisor.process.reaper import Reaper
from supervisor.process.zygote import StartFailed, Zygote
from supervisor.stats import ExitReason, Stats

log = structlog.get_logger("child")

SPARE_DELAY = 0.05
"""Seconds from when a child was needed until the next spare is born: what it was needed for comes first."""


class ChildFactory:
    """Those of one program."""

    def __init__(self, family: Reaper, ledger: Stats) -> None:
        self._family = family
        self._ledger = ledger
        self._has_started_any = False
        self._spare: Child | None = None
        self._zygote: Zygote | None = None  # of which the next child will be wanted; None before the first one
        self._spare_wanted = asyncio.Event()  # that the spare is looked at
        self._spare_failed = False  # and it was said
        self._failures: dict[object, str] = {}
        """Why no child came up, by the berth that wants one; until it has one, or wants none any more."""

    @property
    def has_started_any(self) -> bool:
        """Whether any child ever came up; false means that something is wrong with all of them."""
        return self._has_started_any

    @property
    def shortage(self) -> str | None:
        """Why slots have no child and cannot get one now; None if none is in want."""
        reason = next(iter(self._failures.values()), None)
        return reason and f"{len(self._failures)} without a child: {reason}"

    def failed(self, berth: object, reason: str, retry_in: float) -> None:
        """No child came up for `berth`; log the reason once for all that fail for it."""
        if reason not in self._failures.values():
            log.error("no child for a slot", error=reason, retry_in=round(retry_in, 1))
        self._failures[berth] = reason

    def settled(self, berth: object) -> None:
        """Forget the failures of `berth`: it has a child, or wants none."""
        if self._failures.pop(berth, None) is not None and not self._failures:
            log.info("no slot is without a child any more")

    async def acquire(self, zygote: Zygote) -> Child:
        """A child of `zygote` that waits for its first job, the caller's from now on; raise `StartFailed`."""
        child = self._take_spare(zygote) or await self._start(zygote)
        self._zygote = zygote
        self._spare_wanted.set()
        return child

    def use(self, zygote: Zygote) -> None:
        """Children will be wanted of this one: the spare is not to be of another."""
        if self._zygote is not None:
            self._zygote = zygote
            self._spare_wanted.set()

    async def end(self, child: Child, why: ExitReason) -> None:
        """End a child, if it has not, and all that it started; write down why."""
        # Only a control group tells of that; without one it looks as if somebody had killed it.
        is_starved = child.exit_report is not None and child.exit_report.oom_kill is not None
        self._ledger.child_exits["oom" if is_starved else why] += 1
        await child.kill()

    async def maintain_spare(self) -> None:
        """Have a spare from the first child on; when this is cancelled it is ended."""
        try:
            while True:
                await self._spare_wanted.wait()
                await asyncio.sleep(SPARE_DELAY)
                self._spare_wanted.clear()
                assert self._zygote is not None
                await self._try_to_replace_spare(self._zygote)
        finally:
            await self._end_spare("shutdown")

    def _take_spare(self, zygote: Zygote) -> Child | None:
        child = self._spare
        if child is None or child.zygote is not zygote or not child.is_idle:
            return None
        self._spare = None
        return child

    async def _try_to_replace_spare(self, zygote: Zygote) -> None:
        """It is tried again when the next child is wanted; a slot that needs one tries for itself."""
        try:
            await self._replace_spare(zygote)
        except StartFailed as failed:
            if not self._spare_failed:
                log.warning("no spare child", error=str(failed))
            self._spare_failed = True
        except Exception:  # a bug in what is not needed must not end the jobs
            log.exception("no spare child")
        else:
            self._spare_failed = False

    async def _replace_spare(self, zygote: Zygote) -> None:
        if self._spare is not None and not self._spare.is_idle:
            await self._end_spare("crash")
        if self._spare is not None and self._spare.zygote is not zygote:
            await self._end_spare("reload")
        if self._spare is None:
            self._spare = await self._start(zygote, is_spare=True)

    async def _start(self, zygote: Zygote, *, is_spare: bool = False) -> Child:
        began_at = boottime()
        child = await Child.start(zygote, self._family, is_spare=is_spare)
        self._ledger.child_start_seconds.observe(boottime() - began_at)
        self._has_started_any = True
        return child

    async def _end_spare(self, why: ExitReason) -> None:
        child, self._spare = self._spare, None
        if child is not None:
            await self.end(child, why)
