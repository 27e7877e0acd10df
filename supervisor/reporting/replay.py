"""Sends again what lies in the spool: left behind by attempts that have ended, or by processes that have.

Runs in the parent, beside the slots, which it never holds up.  Each outcome goes out with the fence it was written
with, so the server decides whether it still counts.
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
"""Age in seconds from which an outcome that the server was offered, and did not take, is left to the operator."""
SPOOL_SCAN_INTERVAL = 60.0
"""Seconds; nobody tells us of what other processes leave behind."""

log = structlog.get_logger("spool")


@dataclass(frozen=True, slots=True)
class TooOld:
    """The server was asked and did not take it, which is older than `GIVE_UP_AFTER`: it is the operator's now."""


class Replay:
    """The outcomes that wait for one server and project, one after the other, oldest first."""

    def __init__(self, reporter: Reporter, now: Callable[[], float] = time.time) -> None:
        self._reporter = reporter
        self._spool = reporter.spool
        self._now = now
        # One for all of them: it is the server that is away, hardly ever one outcome that it cannot take.
        self._backoff = Backoff(0.5, SPOOL_SCAN_INTERVAL)

    async def run(self) -> None:
        """Send what is there, and what is left there later, until cancelled; raise `AuthRevoked`."""
        await self._announce()
        while True:
            self._reporter.outcome_left.clear()
            told = frozenset(self._reporter.logged_paths)
            waiting = await self.waiting()
            self._reporter.logged_paths.difference_update(told.difference(waiting))  # others have sent or dropped these
            for path in waiting:
                await self._turn(path)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SPOOL_SCAN_INTERVAL):
                    await self._reporter.outcome_left.wait()

    async def waiting(self) -> list[Path]:
        """What is to be sent."""
        return await to_thread_uncancelled(self._spool.waiting, self._reporter.destination)

    async def send(self, path: Path) -> Answer | TooOld | None:
        """Send one outcome; None when it was not there to be sent: gone, damaged, or in other hands."""
        entry = await to_thread_uncancelled(self._spool.acquire, path, discard=_close)
        if entry is None:
            return None
        note = entry.record
        bound = log.bind(job_id=note.fence.job_id, attempt=note.fence.attempt, action=note.action)
        report = self._reporter.report_of(entry, bound)
        try:
            answer = await report.send()
        finally:
            await report.end()
        waited = self._now() - note.written_at
        # Only after an answer: the clock may have been wrong when the outcome was written, and is right now.
        if isinstance(answer, RetryLater) and answer.was_answered and waited > MAX_OUTCOME_AGE:
            return await self._set_aside(path, bound, answer)
        _tell(bound, answer, waited=round(waited, 1))
        return answer

    async def _set_aside(self, path: Path, bound: structlog.typing.FilteringBoundLogger, answer: RetryLater) -> TooOld:
        bound.error("undeliverable outcome set aside for its age", file=path.name, reason=answer.why)
        entry = await to_thread_uncancelled(self._spool.acquire, path, discard=_close)
        if entry is not None:  # else another process sends it
            await to_thread_uncancelled(self._spool.move_to_undeliverable, entry)
        return TooOld()

    async def log_waiting(self) -> None:
        """Say in the log how many outcomes are left, at the end of the program."""
        if paths := await self.waiting():
            log.warning("outcomes that the server does not have wait in the spool", count=len(paths))

    async def _announce(self) -> None:
        await to_thread_uncancelled(self._spool.sweep)
        ours = len(await self.waiting())
        others = len(await to_thread_uncancelled(self._spool.find, SpoolFolder.WAITING)) - ours
        if ours:
            log.info("outcomes of an earlier run are sent again", count=ours)
        if others:
            log.info("outcomes for other servers or projects are left alone", count=others)

    async def _turn(self, path: Path) -> None:
        try:
            answer = await self.send(path)
        except AuthRevoked:
            raise
        except Exception as error:  # what is wrong with one outcome must not end the jobs, nor keep back the others
            log.exception("an outcome could not be sent again", file=path.name)
            answer = RetryLater(str(error))
        match answer:
            case RetryLater(wait=wait):
                await asyncio.sleep(max(wait, self._backoff.next()))
            case Accepted() | Rejected():
                self._backoff.reset()


def _tell(bound: structlog.typing.FilteringBoundLogger, answer: Answer, waited: float) -> None:
    match answer:
        case Accepted():
            bound.info("delivered from the spool", waited=waited)
        case Rejected(why):
            bound.warning("dropped from the spool: the server does not want it", waited=waited, reason=why)


def _close(entry: SpoolEntry | None) -> None:
    if entry is not None:
        entry.close()
