"""The HTTP routes of a control endpoint.  Runs in the parent's loop and reaches jobs only through `OperatorApi`."""

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
"""Largest accepted `Content-Length`.  No body is ever read."""

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class AuthorizedRequest:
    """An accepted request: the name of the operator (empty for reads) and the job id in the URL."""

    request: web.BaseRequest
    by: str = ""
    job_id: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """A URL pattern, its method and its handler.

    `needs_write`: for operators only.  `is_long`: without a response timeout.  `is_probe`: for probes and scrapers,
    which may use any `Host`.
    """

    method: str
    pattern: str
    answer: Callable[[AuthorizedRequest], Awaitable[web.StreamResponse]]
    needs_write: bool = False
    is_long: bool = False
    is_probe: bool = False

    def accepts(self, method: str) -> bool:
        """True if the route serves this method.  HEAD is served as GET; aiohttp omits the body."""
        return method == self.method or (method == "HEAD" and self.method == "GET" and not self.is_long)


class ControlRoutes:
    """Answers the requests of one endpoint."""

    def __init__(self, operator: OperatorApi, stats: Stats, policy: AccessPolicy, feed: StatusFeed) -> None:
        self._operator = operator
        self._stats = stats
        self._policy = policy
        self._stream = EventStream(feed)
        self._routes = (
            Route("GET", "/", self._show_page),
            Route("GET", "/healthz", self._show_health, is_probe=True),
            Route("GET", "/readyz", self._show_readiness, is_probe=True),
            Route("GET", "/metrics", self._show_metrics, is_probe=True),
            Route("GET", "/status.json", self._show_status),
            Route("GET", "/events", self._show_events, is_long=True),
            Route("GET", "/jobs/([^/]+)/stack", self._show_stack, needs_write=True),
            Route("POST", "/jobs/([^/]+)/cancel", self._cancel, needs_write=True),
            Route("POST", "/pause", self._pause, needs_write=True),
            Route("POST", "/resume", self._resume, needs_write=True),
            Route("POST", "/drain", self._drain, needs_write=True),
            Route("POST", "/reload", self._reload, needs_write=True, is_long=True),
        )

    @property
    def name(self) -> str:
        """The name of the endpoint in log lines."""
        return self._policy.name

    def identify(self, connection: ConnectedSocket) -> Peer:
        """Return the peer of a connection.  Called when the connection is accepted."""
        return self._policy.identify(connection)

    def caller(self, peer: Peer) -> Caller:
        """Return the caller to which the connection limit charges this connection."""
        return self._policy.caller(peer)

    async def answer(self, request: web.BaseRequest, peer: Peer, give_time: Callable[[], None]) -> web.StreamResponse:
        """Answer a request of `peer`.  Call `give_time` if the response may take long."""
        try:
            response = await self._answer(request, peer, give_time)
        except AccessDenied as denied:
            response = _json({"error": str(denied)}, denied.status)
        except CommandRejected as rejected:
            response = _json({"error": str(rejected)}, 409)
        if not response.prepared:
            response.headers.update(_HEADERS)
        response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest, peer: Peer, give_time: Callable[[], None]) -> web.StreamResponse:
        route, job_id = self._find_route(request.rel_url.raw_path)
        self._policy.check_read(peer, request.headers, is_probe=route is not None and route.is_probe)
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise AccessDenied(413, "no command has a body that long")
        if route is None:
            raise AccessDenied(404, "there is nothing at this address")
        if not route.accepts(request.method):
            raise AccessDenied(405, f"this address takes {route.method} only")
        by = self._policy.check_write(peer, request.headers) if route.needs_write else ""
        if route.is_long:
            give_time()
        return await route.answer(AuthorizedRequest(request, by, job_id))

    def _find_route(self, path: str) -> tuple[Route | None, str]:
        """Return the route of a path and the job id in the path."""
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
        quarantined = status.quarantined_actions
        return _verdict(health.unreadiness(status), {"quarantined": quarantined} if quarantined else None)

    async def _show_metrics(self, _: AuthorizedRequest) -> web.Response:
        text = metrics.exposition(await self._operator.status(), self._stats)
        return web.Response(body=text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _show_status(self, _: AuthorizedRequest) -> web.Response:
        body = msgspec.json.encode(await self._operator.status())
        return web.Response(body=body, content_type="application/json")

    async def _show_events(self, authorized: AuthorizedRequest) -> web.StreamResponse:
        return await self._stream.answer(authorized.request)

    async def _show_stack(self, authorized: AuthorizedRequest) -> web.Response:
        return _json({"stack": await self._operator.stack(authorized.job_id)})

    async def _cancel(self, authorized: AuthorizedRequest) -> web.Response:
        self._operator.cancel(authorized.job_id, authorized.by)
        return _done(authorized)

    async def _pause(self, authorized: AuthorizedRequest) -> web.Response:
        self._operator.pause(authorized.by)
        return _done(authorized)

    async def _resume(self, authorized: AuthorizedRequest) -> web.Response:
        self._operator.resume(authorized.by)
        return _done(authorized)

    async def _drain(self, authorized: AuthorizedRequest) -> web.Response:
        self._operator.drain(authorized.by)
        return _done(authorized)

    async def _reload(self, authorized: AuthorizedRequest) -> web.Response:
        await self._operator.reload(authorized.by)
        return _done(authorized)


def _done(authorized: AuthorizedRequest) -> web.Response:
    return _json({"ok": True, "by": authorized.by})


def _verdict(reason: str | None, details: dict[str, Any] | None = None) -> web.Response:
    more = details or {}
    return _json({"ok": True, **more}) if reason is None else _json({"ok": False, "reason": reason, **more}, 503)


def _json(members: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(members) + b"\n", status=status, content_type="application/json")
