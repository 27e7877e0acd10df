"""Server-sent events for whoever watches: the whole status, whenever something has changed, and now and then anyway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec
from aiohttp import web
from msgspec.structs import replace

from supervisor.page.document import render_body
from supervisor.status import SlotStatus, Status
from supervisor.steering import Refused, Steering

MOST = 8
"""Watchers at once."""
SHORTEST = 0.25
"""Seconds between two looks.  To look costs less than to have every job tell of each of its steps."""
LONGEST = 2.0
"""Seconds between two events."""
AGAIN = b"retry: 1000\n\n"
"""When a watcher that has lost us comes again, in milliseconds."""
PATIENCE = 5.0
"""Seconds that a watcher may take to read an event."""


class Stream:
    """All that watch through one door."""

    def __init__(self, steering: Steering) -> None:
        self._steering = steering
        self._watchers = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send events until the watcher leaves, or does not read them; with `?as=html` as the page shows them."""
        if self._watchers >= MOST:
            raise Refused("there are too many watchers already")
        self._watchers += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        try:
            await response.prepare(request)
            with suppress(TimeoutError, ConnectionError):
                await response.write(AGAIN)
                await self._send(response, _html if request.query.get("as") == "html" else _json)
        finally:
            self._watchers -= 1
        if request.transport is not None:
            request.transport.abort()  # what it has not read is of no use to anybody
        return response

    async def _send(self, response: web.StreamResponse, event_of: Callable[[Status], bytes]) -> None:
        loop = asyncio.get_running_loop()
        shown: Status | None = None
        sent_at = 0.0
        while True:
            status = await self._steering.status()
            if gist(status) != shown or loop.time() - sent_at >= LONGEST:
                shown, sent_at = gist(status), loop.time()
                async with asyncio.timeout(PATIENCE):
                    await response.write(event_of(status))
            await asyncio.sleep(SHORTEST)


def _json(status: Status) -> bytes:
    return b"event: status\ndata: " + msgspec.json.encode(status) + b"\n\n"


def _html(status: Status) -> bytes:
    data = render_body(status).replace("\n", "\ndata: ")
    return f"event: page\ndata: {data}\n\n".encode()


def gist(status: Status) -> Status:
    """The status without what changes by itself as time goes by."""
    return replace(
        status,
        now=0.0,
        loop_lag=0.0,
        claims=replace(status.claims, last_answer_age=None, last_job_age=None, last_call_age=None),
        spool=replace(status.spool, oldest_age=None),
        slots=tuple(map(_gist, status.slots)),
    )


def _gist(slot: SlotStatus) -> SlotStatus:
    if slot.job is None:
        return replace(slot, memory=None)
    job = replace(slot.job, elapsed=0.0, cpu_seconds=None, memory=None, lease_left=None)
    return replace(slot, memory=None, job=job)
