"""What is answered at which address.  Runs in the parent's loop; it knows nothing of jobs but what `Steering` says."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from supervisor.control import health
from supervisor.control import prometheus as metrics
from supervisor.control.access import AccessDenied, AccessPolicy
from supervisor.control.connection_limit import Caller
from supervisor.control.event_stream import EventStream, StatusFeed
from supervisor.control.operator import CommandRejected, OperatorApi
from supervisor.control.peer import ConnectedSocket, Peer
from supervisor.page.document import CONTENT_SECURITY_POLICY, render
from supervisor.stats import Stats

MAX_BODY_BYTES = 64 * 1024
"""Bytes; no body is read, and what claims to be longer is no command."""

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class AuthorizedRequest:
    """A request that was let in: who it is if that was asked, and the job that its address names."""

    request: web.BaseRequest
    by: str = ""
    job_id: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """An address, its one method, and who answers.

    `steers`: for operators only; `lasts`: no haste; `is_probe`: for probes and scrapers, which ask by many a name.
    """

    method: str
    pattern: str
    answer: Callable[[AuthorizedRequest], Awaitable[web.StreamResponse]]
    steers: bool = False
    lasts: bool = False
    is_probe: bool = False

    def takes(self, method: str) -> bool:
        """True if the route answers this method; HEAD is as GET, and aiohttp leaves the body out."""
        return method == self.method or (method == "HEAD" and self.method == "GET" and not self.lasts)


class ControlRoutes:
    """Answers the requests that come in by one door."""

    def __init__(self, steering: OperatorApi, ledger: Stats, door: AccessPolicy, feed: StatusFeed) -> None:
        self._operator = steering
        self._stats = ledger
        self._policy = door
        self._stream = EventStream(feed)
        self._routes = (
            Route("GET", "/", self._show_page),
            Route("GET", "/healthz", self._show_health, is_probe=True),
            Route("GET", "/readyz", self._show_readiness, is_probe=True),
            Route("GET", "/metrics", self._show_metrics, is_probe=True),
            Route("GET", "/status.json", self._show_status),
            Route("GET", "/events", self._show_events, lasts=True),
            Route("GET", "/jobs/([^/]+)/stack", self._show_stack, steers=True),
            Route("POST", "/jobs/([^/]+)/cancel", self._cancel, steers=True),
            Route("POST", "/pause", self._pause, steers=True),
            Route("POST", "/resume", self._resume, steers=True),
            Route("POST", "/drain", self._drain, steers=True),
            Route("POST", "/reload", self._reload, steers=True, lasts=True),
        )

    @property
    def name(self) -> str:
        """The name of the door, for the log."""
        return self._policy.name

    def identify(self, connection: ConnectedSocket) -> Peer:
        """Return who has connected; called when the connection is accepted."""
        return self._policy.identify(connection)

    def caller(self, peer: Peer) -> Caller:
        """Return whose connection this counts as."""
        return self._policy.caller(peer)

    async def answer(self, request: web.BaseRequest, peer: Peer, give_time: Callable[[], None]) -> web.StreamResponse:
        """Answer a request of `peer`; `give_time` is called for one that may last."""
        try:
            response = await self._answer(request, peer, give_time)
        except AccessDenied as refused:
            response = _told({"error": str(refused)}, refused.status)
        except CommandRejected as refused:
            response = _told({"error": str(refused)}, 409)
        if not response.prepared:
            response.headers.update(_HEADERS)
        response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest, peer: Peer, give_time: Callable[[], None]) -> web.StreamResponse:
        route, job_id = self._found(request.rel_url.raw_path)
        self._policy.check_read(peer, request.headers, is_probe=route is not None and route.is_probe)
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise AccessDenied(413, "no command has a body that long")
        if route is None:
            raise AccessDenied(404, "there is nothing at this address")
        if not route.takes(request.method):
            raise AccessDenied(405, f"this address takes {route.method} only")
        by = self._policy.check_write(peer, request.headers) if route.steers else ""
        if route.lasts:
            give_time()
        return await route.answer(AuthorizedRequest(request, by, job_id))

    def _found(self, path: str) -> tuple[Route | None, str]:
        """Who answers at an address, and the job that is meant."""
        for route in self._routes:
            if found := re.fullmatch(route.pattern, path):
                return route, unquote("".join(found.groups()))
        return None, ""

    async def _show_page(self, _: AuthorizedRequest) -> web.Response:
        text = render(await self._operator.status(), self._policy.access)
        return web.Response(
            text=text, content_type="text/html", headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY}
        )

    async def _show_health(self, _: AuthorizedRequest) -> web.Response:
        return _verdict(health.illness(self._operator.glance()))

    async def _show_readiness(self, _: AuthorizedRequest) -> web.Response:
        status = self._operator.glance()
        left_out = status.quarantined_actions
        return _verdict(health.unreadiness(status), {"quarantined": left_out} if left_out else None)

    async def _show_metrics(self, _: AuthorizedRequest) -> web.Response:
        text = metrics.exposition(await self._operator.status(), self._stats)
        return web.Response(body=text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _show_status(self, _: AuthorizedRequest) -> web.Response:
        body = msgspec.json.encode(await self._operator.status())
        return web.Response(body=body, content_type="application/json")

    async def _show_events(self, visit: AuthorizedRequest) -> web.StreamResponse:
        return await self._stream.answer(visit.request)

    async def _show_stack(self, visit: AuthorizedRequest) -> web.Response:
        return _told({"stack": await self._operator.stack(visit.job_id)})

    async def _cancel(self, visit: AuthorizedRequest) -> web.Response:
        self._operator.cancel(visit.job_id, visit.by)
        return _done(visit)

    async def _pause(self, visit: AuthorizedRequest) -> web.Response:
        self._operator.pause(visit.by)
        return _done(visit)

    async def _resume(self, visit: AuthorizedRequest) -> web.Response:
        self._operator.resume(visit.by)
        return _done(visit)

    async def _drain(self, visit: AuthorizedRequest) -> web.Response:
        self._operator.drain(visit.by)
        return _done(visit)

    async def _reload(self, visit: AuthorizedRequest) -> web.Response:
        await self._operator.reload(visit.by)
        return _done(visit)


def _done(visit: AuthorizedRequest) -> web.Response:
    return _told({"ok": True, "by": visit.by})


def _verdict(reason: str | None, details: dict[str, Any] | None = None) -> web.Response:
    more = details or {}
    return _told({"ok": True, **more}) if reason is None else _told({"ok": False, "reason": reason, **more}, 503)


def _told(what: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(what) + b"\n", status=status, content_type="application/json")
