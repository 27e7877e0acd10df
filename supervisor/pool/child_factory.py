"""Starts and ends the children of all slots, and keeps one spare child ready.  Runs in the parent.

A start takes some milliseconds.  The spare replaces a child that was killed, or has reached its limits, at once.
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
"""Seconds from the use of a spare to the start of the next one: the job that needed it comes first."""


class ChildFactory:
    """Owns the spare child and the failures to start children."""

    def __init__(self, reaper: Reaper, stats: Stats) -> None:
        self._reaper = reaper
        self._stats = stats
        self._has_started_any = False
        self._spare: Child | None = None
        self._zygote: Zygote | None = None  # of the next child; None before the first one
        self._spare_wanted = asyncio.Event()  # set when the spare has to be checked
        self._spare_failed = False  # and the failure was logged
        self._failures: dict[object, str] = {}
        """Reasons why no child started, by the `WarmChild` that needs one."""

    @property
    def has_started_any(self) -> bool:
        """True if any child ever started; otherwise the fault concerns all of them."""
        return self._has_started_any

    @property
    def shortage(self) -> str | None:
        """The number of slots without a child, with the reason; None if there are none."""
        reason = next(iter(self._failures.values()), None)
        return reason and f"{len(self._failures)} without a child: {reason}"

    def failed(self, requester: object, reason: str, retry_in: float) -> None:
        """Note that no child started for `requester`; log each reason once."""
        if reason not in self._failures.values():
            log.error("no child for a slot", error=reason, retry_in=round(retry_in, 1))
        self._failures[requester] = reason

    def settled(self, requester: object) -> None:
        """Forget the failure of `requester`, which has a child now, or needs none."""
        if self._failures.pop(requester, None) is not None and not self._failures:
            log.info("no slot is without a child any more")

    async def acquire(self, zygote: Zygote) -> Child:
        """Return an unused child of `zygote`, which the caller owns from now on; raise `StartFailed`."""
        child = self._take_spare(zygote) or await self._start(zygote)
        self._zygote = zygote
        self._spare_wanted.set()
        return child

    def use(self, zygote: Zygote) -> None:
        """Fork later children from `zygote`, and replace a spare of another one."""
        if self._zygote is not None:
            self._zygote = zygote
            self._spare_wanted.set()

    async def end(self, child: Child, why: ExitReason) -> None:
        """Kill a child and its descendants, if they still run; count the exit under `why`."""
        # Only a control group reports an OOM kill; without one it looks like any SIGKILL.
        is_starved = child.exit_report is not None and child.exit_report.oom_kill is not None
        self._stats.child_exits["oom" if is_starved else why] += 1
        await child.kill()

    async def maintain_spare(self) -> None:
        """Keep a spare from the first child on, until cancelled; then end it."""
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
        """Start a new spare.  After a failure the next `acquire` tries again; slots start children by themselves."""
        try:
            await self._replace_spare(zygote)
        except StartFailed as failed:
            if not self._spare_failed:
                log.warning("no spare child", error=str(failed))
            self._spare_failed = True
        except Exception:  # a bug here must not end the jobs: no job needs the spare
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
        child = await Child.start(zygote, self._reaper, is_spare=is_spare)
        self._stats.child_start_seconds.observe(boottime() - began_at)
        self._has_started_any = True
        return child

    async def _end_spare(self, why: ExitReason) -> None:
        child, self._spare = self._spare, None
        if child is not None:
            await self.end(child, why)
