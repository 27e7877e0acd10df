"""Brings jobs and waiting polls together, and lets time pass for the store.  No HTTP.

Polls are served in the order in which they came.  Whoever changes the store calls `follow_up` afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from supervisor.devserver.changes import Changes
from supervisor.devserver.records import Job
from supervisor.devserver.requests import ClaimRequest
from supervisor.devserver.store import Store


@dataclass(eq=False, slots=True)
class Poll:
    """A client that waits for a job; `is_open` says whether it still listens."""

    project: str
    request: ClaimRequest
    is_open: Callable[[], bool]
    job: asyncio.Future[Job] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def wish(self) -> tuple[object, ...]:
        """What it would take: polls with the same wish find nothing together."""
        return self.project, self.request.queues, self.request.actions


class Dispatch:
    """The store's connection to the running loop."""

    def __init__(self, store: Store, changes: Changes) -> None:
        self._store = store
        self._changes = changes
        self._polls: dict[Poll, None] = {}
        self._closing = asyncio.Event()
        self._sooner = asyncio.Event()
        self._wake_at: float | None = None

    async def claim(self, project: str, request: ClaimRequest, is_open: Callable[[], bool]) -> Job | None:
        """Lease a job, waiting as long as the request says; cancelled while it waits, it leases nothing."""
        poll = Poll(project, request, is_open)
        self._polls[poll] = None
        try:
            self.follow_up()
            if not poll.job.done() and request.wait_seconds and not self._closing.is_set():
                await asyncio.wait((poll.job,), timeout=request.wait_seconds)
        except asyncio.CancelledError:
            self._take_back(poll)
            raise
        finally:
            del self._polls[poll]
        return poll.job.result() if poll.job.done() and not poll.job.cancelled() else None

    def give_back(self, job: Job) -> None:
        """The answer with `job` did not reach the worker."""
        self._store.release(job, time.time())
        self.follow_up()

    def follow_up(self) -> None:
        """Do what a change of the store asks for: serve polls, set the alarm, tell those who watch."""
        self._serve_polls()
        wake_at = self._store.next_wake_at(time.time())
        if wake_at is not None and (self._wake_at is None or wake_at < self._wake_at):
            self._sooner.set()
        self._changes.announce()

    async def keep_time(self) -> None:
        """Let leases run out and backoffs elapse, each at its moment; runs until cancelled."""
        while True:
            self._sooner.clear()
            self._wake_at = self._store.next_wake_at(time.time())
            if not await self._is_called_sooner():
                self._store.expire(time.time())
                self.follow_up()

    def close(self) -> None:
        """Send all waiting polls home."""
        self._closing.set()
        for poll in self._polls:
            poll.job.cancel()

    async def _is_called_sooner(self) -> bool:
        delay = None if self._wake_at is None else max(0.0, self._wake_at - time.time())
        try:
            async with asyncio.timeout(delay):
                return await self._sooner.wait()
        except TimeoutError:
            return False

    def _serve_polls(self) -> None:
        vain = set[object]()
        for poll in self._polls:
            if poll.wish in vain or poll.job.done() or not poll.is_open():
                continue
            job = self._store.claim(poll.project, poll.request, time.time())
            if job is None:
                vain.add(poll.wish)
            else:
                poll.job.set_result(job)

    def _take_back(self, poll: Poll) -> None:
        if poll.job.done() and not poll.job.cancelled():
            self.give_back(poll.job.result())
        else:
            poll.job.cancel()
