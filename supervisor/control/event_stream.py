"""What there is to watch: one look and one rendering for all watchers, however many and by whichever door."""

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

MIN_LOOK_INTERVAL = 0.25
"""Seconds between two looks.  To look costs less than to have every job tell of each of its steps."""
MAX_LOOK_INTERVAL = 2.0
"""Seconds between two editions."""


@dataclass(frozen=True)
class Snapshot:
    """The status at one time, as it is sent."""

    status: Status
    made_at: float

    @cached_property
    def gist(self) -> Status:
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
    """Owns the latest edition; it looks only when a watcher asks."""

    def __init__(self, steering: OperatorApi) -> None:
        self._steering = steering
        self._looking = asyncio.Lock()
        self._looked_at = 0.0
        self._edition: Snapshot | None = None

    async def latest(self) -> Snapshot:
        """Return the same one until something has changed, or it is `LONGEST` old."""
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if self._edition is None or now - self._looked_at >= MIN_LOOK_INTERVAL:
                self._looked_at = now
                self._edition = _next(self._edition, Snapshot(await self._steering.status(), now))
            return self._edition


def _next(old: Snapshot | None, new: Snapshot) -> Snapshot:
    if old is None or new.gist != old.gist or new.made_at - old.made_at >= MAX_LOOK_INTERVAL:
        return new
    return old


def without_volatile(status: Status) -> Status:
    """The status without what changes by itself as time goes by."""
    return replace(
        status,
        now=0.0,
        loop_lag=0.0,
        claims=replace(status.claims, last_answer_age=None, last_job_age=None),
        spool=replace(status.spool, oldest_age=None),
        slots=tuple(map(_gist, status.slots)),
    )


def _gist(slot: SlotStatus) -> SlotStatus:
    if slot.job is None:
        return replace(slot, memory=None)
    job = replace(slot.job, elapsed=0.0, cpu_seconds=None, memory=None, lease_left=None)
    return replace(slot, memory=None, job=job)


MAX_SUBSCRIBERS = 8
"""Watchers at once."""
RECONNECT_DELAY_FIELD = b"retry: 1000\n\n"
"""When a watcher that has lost us comes again, in milliseconds."""
SEND_TIMEOUT = 5.0
"""Seconds that a watcher may take to read an event."""


class EventStream:
    """All that watch through one door."""

    def __init__(self, feed: StatusFeed) -> None:
        self._feed = feed
        self._watchers = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send events until the watcher leaves, or does not read them; with `?as=html` as the page shows them."""
        if self._watchers >= MAX_SUBSCRIBERS:
            raise CommandRejected("there are too many watchers already")
        self._watchers += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        try:
            await response.prepare(request)
            with suppress(TimeoutError, ConnectionError):
                await response.write(RECONNECT_DELAY_FIELD)
                await self._send(response, attrgetter("html" if request.query.get("as") == "html" else "json"))
        finally:
            self._watchers -= 1
        if request.transport is not None:
            request.transport.abort()  # what it has not read is of no use to anybody
        return response

    async def _send(self, response: web.StreamResponse, event_of: Callable[[Snapshot], bytes]) -> None:
        shown = None
        while True:
            latest = await self._feed.latest()
            if latest is not shown:
                shown = latest
                async with asyncio.timeout(SEND_TIMEOUT):
                    await response.write(event_of(latest))
            await asyncio.sleep(MIN_LOOK_INTERVAL)
