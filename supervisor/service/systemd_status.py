"""Reports to systemd while the program serves: readiness, status line, watchdog.  Runs in the parent.

Tested by tests/flows/test_start.py and tests/flows/test_watchdog.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from supervisor.concurrency.helpers import HelperTasks
from supervisor.linux.syscalls import boottime
from supervisor.pool.pool import Pool
from supervisor.reporting.replay import Replay
from supervisor.service.handler_loader import HandlerLoader
from supervisor.service.shutdown import Shutdown, Stage
from supervisor.service.systemd_notify import Notifier

log = structlog.get_logger("service")

STATUS_INTERVAL = 5.0
"""Seconds between two updates of the line in `systemctl status`."""
START_EXTENSION = 30.0
"""Seconds by which the start is extended, repeatedly, until the program serves."""
WATCHDOG_RETRY_INTERVAL = 1.0
"""Seconds between two checks while the pool has stalled."""
MAX_ERROR_CHARS = 300
"""Characters of an error in the status line."""


async def extend_start_timeout(notifier: Notifier) -> None:
    """Extend a long start until cancelled, as long as the event loop runs.

    Handlers may take longer than its patience to import, and the server may be away when the machine boots: to be
    started again would help neither.
    """
    while True:
        notifier.extend_timeout(START_EXTENSION)
        await asyncio.sleep(START_EXTENSION / 3)


class SystemdReporter:
    """Reports for the pool and the handler loader."""

    def __init__(
        self,
        notifier: Notifier,
        pool: Pool,
        code: HandlerLoader,
        replay: Replay,
        shutdown: Shutdown,
        mask: Callable[[str], str],
    ) -> None:
        self._notifier = notifier
        self._pool = pool
        self._code = code
        self._replay = replay
        self._shutdown = shutdown
        self._mask = mask

    async def run(self) -> None:
        """Report readiness once the program serves, and then the status line."""
        async with HelperTasks() as beside:
            beside.start(lambda: extend_start_timeout(self._notifier))
            beside.start(self._report_regularly)
            await self._pool.wait_serving()
            self.ready()
            log.info("serving")
        await self._report_regularly()

    async def _report_regularly(self) -> None:
        while True:
            await self.send_status()
            await asyncio.sleep(STATUS_INTERVAL)

    def ready(self) -> None:
        """Report readiness after the start or a reload, but not during a shutdown."""
        if self._shutdown.stage is Stage.SERVE:
            self._notifier.ready()

    async def send_status(self) -> None:
        """Update the line of `systemctl status`."""
        spooled = len(await self._replay.waiting())
        self._notifier.status(status_line(self._pool, self._code, spooled, boottime(), self._mask))

    async def run_watchdog(self) -> None:
        """Feed the watchdog from the loop that sends heartbeats and claims, and only while these go on."""
        loop = asyncio.get_running_loop()
        told: str | None = None
        while (interval := self._notifier.watchdog_interval) is not None:
            standstill = self._pool.stall_reason(loop.time())
            if standstill is None:
                self._notifier.watchdog()
            elif standstill != told:
                log.error("the watchdog is not fed", reason=standstill)
            told = standstill
            # Feed at once when the pool goes on again: half of the watchdog's time is over.
            await asyncio.sleep(interval if standstill is None else min(interval, WATCHDOG_RETRY_INTERVAL))


def status_line(pool: Pool, code: HandlerLoader, spooled: int, now: float, mask: Callable[[str], str]) -> str:
    """How it goes, in one line.  What is cut is masked before: half a key is no key to `mask`."""
    idle = sum(slot.state == "idle" and slot.job is None for slot in pool.status({}))
    parts = [f"{pool.size} children: {pool.busy} busy {idle} idle", f"{spooled} spooled"]
    if pool.stats.answered_at is not None:
        parts.append(f"last claim {max(0, now - pool.stats.answered_at):.0f} s ago")
    elif pool.stats.claim_error is not None:
        parts.append(f"no claim was answered: {mask(pool.stats.claim_error)[:MAX_ERROR_CHARS]}")
    if pool.gate.reason is not None:
        parts.append(mask(pool.gate.reason))
    if code.start_error is not None:
        parts.append(f"no child can be born: {mask(code.start_error)[:MAX_ERROR_CHARS]}")
    if code.error is not None:
        parts.append(f"reload refused: {mask(code.error)[:MAX_ERROR_CHARS]}")
    return ", ".join(parts)
