"""The status as server-sent events.  All subscribers of all endpoints share one status read and one rendering."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

import msgspec
from aiohttp import web
from msgspec.structs import replace

from supervisor.control.operator import CommandRejected, OperatorApi
from supervisor.page.document import render_body
from supervisor.status import SlotStatus, Status

MIN_READ_INTERVAL = 0.25
"""Seconds between two reads of the status.  Polling costs less than a notification for each step of each job."""
MAX_SNAPSHOT_AGE = 2.0
"""Seconds after which a snapshot is replaced although nothing has changed."""


@dataclass(frozen=True)
class Snapshot:
    """The status at one time and its renderings."""

    status: Status
    made_at: float

    @cached_property
    def comparable(self) -> Status:
        return without_volatile(self.status)

    @cached_property
    def json(self) -> bytes:
        """The event for programs."""
        return b"event: status\ndata: " + msgspec.json.encode(self.status) + b"\n\n"

    @cached_property
    def html(self) -> bytes:
        """The event for the page."""
        data = render_body(self.status).replace("\n", "\ndata: ")
        return f"event: page\ndata: {data}\n\n".encode()


class StatusFeed:
    """Owns the latest snapshot.  Reads the status only when a subscriber asks."""

    def __init__(self, operator: OperatorApi) -> None:
        self._operator = operator
        self._lock = asyncio.Lock()
        self._read_at = 0.0
        self._latest: Snapshot | None = None

    async def latest(self) -> Snapshot:
        """Return the latest snapshot: the same object until the status changes or `MAX_SNAPSHOT_AGE` has passed."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._latest is None or now - self._read_at >= MIN_READ_INTERVAL:
                self._read_at = now
                self._latest = _next(self._latest, Snapshot(await self._operator.status(), now))
            return self._latest


def _next(old: Snapshot | None, new: Snapshot) -> Snapshot:
    if old is None or new.comparable != old.comparable or new.made_at - old.made_at >= MAX_SNAPSHOT_AGE:
        return new
    return old


def without_volatile(status: Status) -> Status:
    """Return the status without the values that change merely because time passes."""
    return replace(
        status,
        now=0.0,
        loop_lag=0.0,
        claims=replace(status.claims, last_answer_age=None, last_job_age=None),
        spool=replace(status.spool, oldest_age=None),
        slots=tuple(map(_slot_without_volatile, status.slots)),
    )


def _slot_without_volatile(slot: SlotStatus) -> SlotStatus:
    if slot.job is None:
        return replace(slot, memory=None)
    job = replace(slot.job, elapsed=0.0, cpu_seconds=None, memory=None, lease_left=None)
    return replace(slot, memory=None, job=job)


MAX_SUBSCRIBERS = 8
"""Concurrent subscribers of one endpoint."""
RECONNECT_DELAY_FIELD = b"retry: 1000\n\n"
"""The delay, in milliseconds, before a subscriber reconnects."""
SEND_TIMEOUT = 5.0
"""Seconds that a subscriber may take to read an event."""


class EventStream:
    """The subscribers of one endpoint."""

    def __init__(self, feed: StatusFeed) -> None:
        self._feed = feed
        self._subscribers = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send events until the subscriber disconnects or stops reading; with `?as=html` send the page body."""
        if self._subscribers >= MAX_SUBSCRIBERS:
            raise CommandRejected("there are too many watchers already")
        self._subscribers += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        try:
            await response.prepare(request)
            with suppress(TimeoutError, ConnectionError):
                await response.write(RECONNECT_DELAY_FIELD)
                await self._send(response, attrgetter("html" if request.query.get("as") == "html" else "json"))
        finally:
            self._subscribers -= 1
        if request.transport is not None:
            request.transport.abort()  # unread events are outdated and need not be delivered
        return response

    async def _send(self, response: web.StreamResponse, event_of: Callable[[Snapshot], bytes]) -> None:
        sent = None
        while True:
            latest = await self._feed.latest()
            if latest is not sent:
                sent = latest
                async with asyncio.timeout(SEND_TIMEOUT):
                    await response.write(event_of(latest))
            await asyncio.sleep(MIN_READ_INTERVAL)
