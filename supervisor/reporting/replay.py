"""Resends outcomes from the spool, which earlier attempts or earlier processes could not deliver.

Runs in the parent and never delays the slots.  Each outcome is sent with the fence it was stored with, so the server
decides whether the outcome is still current.  Tested by tests/flows/test_spool.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from supervisor.concurrency.backoff import Backoff
from supervisor.concurrency.helpers import to_thread_uncancelled
from supervisor.job_server import AuthRevoked
from supervisor.reporting.report import Accepted, Answer, Rejected, Reporter, RetryLater
from supervisor.reporting.spool import SpoolEntry, SpoolFolder

MAX_OUTCOME_AGE = 7 * 86400.0
"""Seconds after which an outcome that the server does not accept is left to the operator."""
SPOOL_SCAN_INTERVAL = 60.0
"""Seconds between scans for outcomes of other processes, which send no notification."""

log = structlog.get_logger("spool")


@dataclass(frozen=True, slots=True)
class TooOld:
    """The server did not accept an outcome older than `MAX_OUTCOME_AGE`, which is now left to the operator."""


class Replay:
    """Sends the stored outcomes of one server and project, one at a time, oldest first."""

    def __init__(self, reporter: Reporter, now: Callable[[], float] = time.time) -> None:
        self._reporter = reporter
        self._spool = reporter.spool
        self._now = now
        # One backoff for all outcomes: usually the server is unavailable, rarely is one outcome at fault.
        self._backoff = Backoff(0.5, SPOOL_SCAN_INTERVAL)

    async def run(self) -> None:
        """Send stored outcomes, and later ones when they appear, until cancelled; raise `AuthRevoked`."""
        await self._announce()
        while True:
            self._reporter.outcome_left.clear()
            logged = frozenset(self._reporter.logged_paths)
            waiting = await self.waiting()
            self._reporter.logged_paths.difference_update(logged.difference(waiting))  # other processes removed these
            for path in waiting:
                await self._send_logged(path)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SPOOL_SCAN_INTERVAL):
                    await self._reporter.outcome_left.wait()

    async def waiting(self) -> list[Path]:
        """Return the files to be sent."""
        return await to_thread_uncancelled(self._spool.waiting, self._reporter.destination)

    async def send(self, path: Path) -> Answer | TooOld | None:
        """Send one outcome; return None when its file is gone, damaged, or locked by another process."""
        entry = await to_thread_uncancelled(self._spool.acquire, path, discard=_close)
        if entry is None:
            return None
        record = entry.record
        bound = log.bind(job_id=record.fence.job_id, attempt=record.fence.attempt, action=record.action)
        report = self._reporter.report_of(entry, bound)
        try:
            answer = await report.send()
        finally:
            await report.end()
        waited = self._now() - record.written_at
        # Require a reply: if the clock was wrong when the outcome was stored, its age means nothing, so try once first.
        if isinstance(answer, RetryLater) and answer.was_answered and waited > MAX_OUTCOME_AGE:
            return await self._set_aside(path, bound, answer)
        _log_answer(bound, answer, waited=round(waited, 1))
        return answer

    async def _set_aside(self, path: Path, bound: structlog.typing.FilteringBoundLogger, answer: RetryLater) -> TooOld:
        bound.error("outcome too old and moved to undeliverable", file=path.name, reason=answer.why)
        entry = await to_thread_uncancelled(self._spool.acquire, path, discard=_close)
        if entry is not None:  # otherwise another process is sending it
            await to_thread_uncancelled(self._spool.move_to_undeliverable, entry)
        return TooOld()

    async def log_waiting(self) -> None:
        """Log how many outcomes remain when the program ends."""
        if paths := await self.waiting():
            log.warning("undelivered outcomes remain in the spool", count=len(paths))

    async def _announce(self) -> None:
        await to_thread_uncancelled(self._spool.sweep)
        ours = len(await self.waiting())
        others = len(await to_thread_uncancelled(self._spool.find, SpoolFolder.WAITING)) - ours
        if ours:
            log.info("resending outcomes of an earlier run", count=ours)
        if others:
            log.info("ignoring outcomes for other servers or projects", count=others)

    async def _send_logged(self, path: Path) -> None:
        try:
            answer = await self.send(path)
        except AuthRevoked:
            raise
        except Exception as error:  # a bug with one outcome must not stop jobs or other outcomes
            log.exception("unexpected error while resending an outcome", file=path.name)
            answer = RetryLater(str(error))
        match answer:
            case RetryLater(wait=wait):
                await asyncio.sleep(max(wait, self._backoff.next()))
            case Accepted() | Rejected():
                self._backoff.reset()


def _log_answer(bound: structlog.typing.FilteringBoundLogger, answer: Answer, waited: float) -> None:
    match answer:
        case Accepted():
            bound.info("outcome delivered from the spool", waited=waited)
        case Rejected(why):
            bound.warning("outcome rejected by the server and dropped from the spool", waited=waited, reason=why)


def _close(entry: SpoolEntry | None) -> None:
    if entry is not None:
        entry.close()
