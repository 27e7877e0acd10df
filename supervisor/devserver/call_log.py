"""Log of received calls, and a hook for tests to intercept them.  Disabled by default.

Tested by tests/devserver/test_app.py.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from supervisor.devserver.dispatch import ChangeSignal


@dataclass(frozen=True, slots=True)
class Call:
    """One request.  `name` is the name of its endpoint: claim, heartbeat, events, complete, get_job, start_run, ...

    `body` is decoded JSON, None without one; `status` is None during the call, and after the client
    disconnected; times are from `time.monotonic`.
    """

    name: str
    project: str | None
    job_id: str | None
    body: Any
    received_at: float
    status: int | None = None
    answered_at: float | None = None


class InterceptionError(Exception):
    """Raised by an interception to abort the connection."""


class HangUp(InterceptionError):
    """Abort without processing the call."""


class LoseAnswer(InterceptionError):
    """Abort after processing the call.  Not for claims and streams, which send their answers themselves."""


Intercept = Callable[[Call], Awaitable[web.StreamResponse | None]]


class CallLog:
    """The last `size` calls in order of arrival."""

    def __init__(self, changes: ChangeSignal, *, size: int) -> None:
        self.intercept: Intercept | None = None
        self._changes = changes
        self._size = size
        self._calls: dict[int, Call] = {}
        self._count = 0

    @property
    def calls(self) -> list[Call]:
        return list(self._calls.values())

    @web.middleware
    async def observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Record the call, pass it to the hook, then process it."""
        if not self._size and self.intercept is None:
            return await handler(request)
        number = self._open(request)
        status: int | None = None
        try:
            self._note(number, body=_decoded(await request.read()))
            response = await self._interfere(number, request, handler)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            self._note(number, status=status, answered_at=time.monotonic())
        return response

    async def _interfere(self, number: int, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            instead = await self.intercept(self._calls[number]) if self.intercept else None
        except HangUp:
            return _break_connection(request)
        except LoseAnswer:
            await handler(request)
            return _break_connection(request)
        return await handler(request) if instead is None else instead

    def _open(self, request: web.Request) -> int:
        self._count += 1
        place = request.match_info
        call = Call(place.route.name or "unknown", place.get("project"), place.get("job"), None, time.monotonic())
        self._calls[self._count] = call
        self._calls.pop(self._count - max(self._size, 1), None)
        self._changes.announce()
        return self._count

    def _note(self, number: int, **news: Any) -> None:
        call = self._calls.get(number)
        if call is not None:
            self._calls[number] = replace(call, **news)
            self._changes.announce()


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _break_connection(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=499)  # only for the log; the client is disconnected
