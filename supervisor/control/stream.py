"""Server-sent events for whoever watches: the whole status, whenever something has changed, and now and then anyway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter

from aiohttp import web

from supervisor.control.event_stream import MIN_LOOK_INTERVAL, Snapshot, StatusFeed
from supervisor.control.operator import CommandRejected

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
