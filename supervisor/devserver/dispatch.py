"""Assigns jobs to waiting polls, and expires leases on time.  No HTTP.

Polls are served in order of arrival.  Each caller that changes the store calls `follow_up` afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from supervisor.devserver.records import Job
from supervisor.devserver.requests import ClaimRequest
from supervisor.devserver.store import Store


@dataclass(eq=False, slots=True)
class Poll:
    """A client that waits for a job; `is_open` returns True while it is connected."""

    project: str
    request: ClaimRequest
    is_open: Callable[[], bool]
    job: asyncio.Future[Job] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def lease(self) -> Job | None:
        return self.job.result() if self.job.done() and not self.job.cancelled() else None

    @property
    def filter(self) -> tuple[object, ...]:
        """Project, queues and actions: polls with the same filter match the same jobs."""
        return self.project, self.request.queues, self.request.actions


class Dispatch:
    """Connects the store with the running event loop."""

    def __init__(self, store: Store, changes: ChangeSignal) -> None:
        self._store = store
        self._changes = changes
        self._polls: dict[Poll, None] = {}
        self._is_closing = False
        self._sooner = asyncio.Event()
        self._wake_at: float | None = None
        self._served_at = 0.0

    async def claim(self, project: str, request: ClaimRequest, is_open: Callable[[], bool]) -> Job | None:
        """Lease a job, waiting as long as the request allows; a cancelled call leases nothing."""
        poll = Poll(project, request, is_open)
        if self._serve(poll):
            self.follow_up()
        elif request.wait_seconds and not self._is_closing:
            await self._wait_in_line(poll, request.wait_seconds)
        return poll.lease

    def give_back(self, job: Job) -> None:
        """Release a job whose answer did not reach the worker."""
        self._store.release(job, time.time())
        self.follow_up()

    def follow_up(self) -> None:
        """React to a change of the store: serve polls, set the timer, notify watchers."""
        self._serve_polls()
        wake_at = self._store.next_wake_at(self._served_at)
        if wake_at is not None and (self._wake_at is None or wake_at < self._wake_at):
            self._sooner.set()
        self._changes.announce()

    async def keep_time(self) -> None:
        """Expire leases and end backoffs on time, until cancelled."""
        while True:
            self._sooner.clear()
            self._wake_at = self._store.next_wake_at(self._served_at)
            if not await self._is_called_sooner():
                self._store.expire(time.time())
                self.follow_up()

    def close(self) -> None:
        """End all waiting polls."""
        self._is_closing = True
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
        # Jobs that become ready after this moment need a timer, even if it expires at once.
        self._served_at = time.time()
        unmatched = set[object]()
        for poll in self._polls:
            if not poll.job.done() and poll.filter not in unmatched and not self._serve(poll):
                unmatched.add(poll.filter)

    def _serve(self, poll: Poll) -> bool:
        """Lease a job to the poll; return False when no job matches its filter."""
        if not poll.is_open():
            return True  # the client has disconnected; other polls with this filter may still match
        job = self._store.claim(poll.project, poll.request, time.time())
        if job is not None:
            poll.job.set_result(job)
        return job is not None

    async def _wait_in_line(self, poll: Poll, seconds: float) -> None:
        self._polls[poll] = None
        try:
            await asyncio.wait((poll.job,), timeout=seconds)
        except asyncio.CancelledError:
            # The job may have been leased just when the client disconnected.
            if poll.lease is not None:
                self.give_back(poll.lease)
            raise
        finally:
            del self._polls[poll]


class ChangeSignal:
    """Broadcast of changes, with a new event for each change.

    Take `upcoming` first, then read the state, then wait for the event, so that no change is missed.
    """

    def __init__(self) -> None:
        self.upcoming = asyncio.Event()

    def announce(self) -> None:
        self.upcoming.set()
        self.upcoming = asyncio.Event()
