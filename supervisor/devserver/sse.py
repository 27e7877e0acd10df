"""Server-sent events of runs, read from the history.  Tested by tests/devserver/test_app.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec
from aiohttp import web

from supervisor.devserver.dispatch import ChangeSignal
from supervisor.devserver.errors import Invalid
from supervisor.devserver.records import StoredEvent
from supervisor.devserver.store import Store
from supervisor.devserver.views import event_view, run_view

_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
_KEEPALIVE = b":keepalive\n\n"


class EventStreams:
    """Two streams: events of one run, and of all runs of a project.

    A run's stream begins with the current run, continues with the events after `since` (default: all), and ends with
    the run.  The project's stream never ends, and begins with the events after `since` (default: new ones only).
    """

    def __init__(self, store: Store, changes: ChangeSignal, *, keepalive: float) -> None:
        self._store = store
        self._changes = changes
        self._keepalive = keepalive
        self._is_closing = False

    def routes(self) -> list[web.RouteDef]:
        runs = "/v1/projects/{project}/runs"
        return [
            web.get(f"{runs}/events", self.of_project, name="watch_runs", allow_head=False),
            web.get(f"{runs}/{{run}}/events", self.of_run, name="watch_run", allow_head=False),
        ]

    def close(self) -> None:
        """End all streams."""
        self._is_closing = True
        self._changes.announce()

    async def of_project(self, request: web.Request) -> web.StreamResponse:
        since = _since(request, self._store.last_seq())
        stream = await _open(request)
        await self._follow(stream, since, project=request.match_info["project"], run_id=None)
        return stream

    async def of_run(self, request: web.Request) -> web.StreamResponse:
        project, run_id = request.match_info["project"], request.match_info["run"]
        since = _since(request, 0)
        first = self._current(project, run_id, since)
        stream = await _open(request)
        await stream.write(_frame(first))
        await self._follow(stream, since, project=project, run_id=run_id)
        return stream

    async def _follow(self, stream: web.StreamResponse, since: int, *, project: str, run_id: str | None) -> None:
        is_last = False
        while not is_last:
            changed = self._changes.upcoming
            is_last = self._is_last_look(project, run_id)
            since = await self._send_after(stream, since, project=project, run_id=run_id)
            if not is_last:
                await self._wait(changed, stream)

    async def _send_after(self, stream: web.StreamResponse, since: int, *, project: str, run_id: str | None) -> int:
        while events := self._store.events_after(since, project=project, run_id=run_id):
            await stream.write(_frames(events))
            since = events[-1].seq
        return since

    async def _wait(self, changed: asyncio.Event, stream: web.StreamResponse) -> None:
        try:
            async with asyncio.timeout(self._keepalive):
                await changed.wait()
        except TimeoutError:
            await stream.write(_KEEPALIVE)

    def _is_last_look(self, project: str, run_id: str | None) -> bool:
        """True if no events follow those that can be read now."""
        return self._is_closing or (run_id is not None and self._store.run(project, run_id).status != "active")

    def _current(self, project: str, run_id: str, since: int) -> StoredEvent:
        """Return the current run as an event numbered `since`, so that a client can continue from there."""
        run, now = self._store.run(project, run_id), time.time()
        data = msgspec.json.encode(run_view(run, self._store.open_job(run_id), now))
        return StoredEvent(since, project, run_id, "run_updated", now, data)


def _since(request: web.Request, default: int) -> int:
    text = request.query.get("since") or str(default)
    if not (text.isascii() and text.isdecimal()):
        raise Invalid(f"since is not a number: {text!r}")
    return min(int(text), 2**63 - 1)


async def _open(request: web.Request) -> web.StreamResponse:
    stream = web.StreamResponse(headers=_HEADERS)
    await stream.prepare(request)
    return stream


def _frames(events: Sequence[StoredEvent]) -> bytes:
    return b"".join(map(_frame, events))


def _frame(event: StoredEvent) -> bytes:
    return b"event: %b\nid: %d\ndata: %b\n\n" % (event.type.encode(), event.seq, msgspec.json.encode(event_view(event)))
