"""The HTTP server of one control endpoint, with its connection limit and timeouts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from supervisor.control.connection_limit import Connection, ConnectionLimit, Phase
from supervisor.control.peer import Peer
from supervisor.control.refusal_log import RefusalLog
from supervisor.control.routes import ControlRoutes

HEAD_TIMEOUT = 5.0
"""Seconds from the connection to the end of the request head.  No body is ever read."""
ANSWER_TIMEOUT = 10.0
"""Seconds from the request head to the end of the response, except for responses that take long by design."""
CLOSE_TIMEOUT = 0.5
"""Seconds that open responses get at shutdown."""


@dataclass(slots=True, eq=False)
class _OpenConnection:
    """An admitted connection and its deadline."""

    connection: Connection
    peer: Peer
    transport: asyncio.Transport
    deadline: asyncio.TimerHandle


class ControlServer(web.Server):
    """Accepts connections and passes their requests to the routes."""

    def __init__(self, routes: ControlRoutes) -> None:
        self._refusals = RefusalLog(routes.name)
        super().__init__(
            self._handle,
            access_log=None,
            logger=self._refusals,
            keepalive_timeout=0,
            lingering_time=0,
            max_line_size=4096,
            max_field_size=8190,
        )
        self._routes = routes
        self._limit = ConnectionLimit()
        self._open: dict[Any, _OpenConnection] = {}
        self._answering: set[asyncio.Task[Any]] = set()

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        loop = asyncio.get_running_loop()
        peer = self._routes.identify(transport.get_extra_info("socket"))
        connection, dropped = self._limit.admit(self._routes.caller(peer), loop.time())
        if dropped is not None:
            self._refusals.count("dropped for newer ones")
            self._drop(dropped)
        if connection is None:
            self._refusals.count("no room")
            # Not immediately: aiohttp's task would find no transport and fail with a traceback.
            loop.call_soon(transport.abort)
            return
        deadline = loop.call_later(HEAD_TIMEOUT, transport.abort)
        self._open[handler] = _OpenConnection(connection, peer, transport, deadline)

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        if (lost := self._open.pop(handler, None)) is not None:
            lost.deadline.cancel()
            self._limit.remove(lost.connection)

    def _drop(self, connection: Connection) -> None:
        for each in self._open.values():
            if each.connection is connection:
                each.transport.abort()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            return await self._answer(request)
        finally:
            self._answering.discard(task)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        opened = self._open.get(request.protocol)
        if opened is None or request.transport is None:
            raise ConnectionResetError  # dropped after its head arrived; aiohttp expects this exception
        opened.connection.phase = Phase.ANSWERING
        opened.deadline.cancel()
        opened.deadline = asyncio.get_running_loop().call_later(ANSWER_TIMEOUT, opened.transport.abort)

        def give_time() -> None:
            opened.connection.phase = Phase.LASTING
            opened.deadline.cancel()

        return await self._routes.answer(request, opened.peer, give_time)

    async def close(self) -> None:
        """Close all connections and cancel the requests whose connection is already gone."""
        await self.shutdown(CLOSE_TIMEOUT)
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        self._refusals.close()

    async def listen(self, listening: socket.socket) -> asyncio.Server:
        """Accept connections from a listening socket.  The returned listener owns the socket."""
        loop = asyncio.get_running_loop()
        create = loop.create_unix_server if listening.family == socket.AF_UNIX else loop.create_server
        return await create(self, sock=listening)


@asynccontextmanager
async def receiving(listening: socket.socket, routes: ControlRoutes) -> AsyncIterator[None]:
    """Answer requests from a listening socket, which the server takes over, inside the block."""
    server = ControlServer(routes)
    listener = await server.listen(listening)
    try:
        yield
    finally:
        listener.close()
        await server.close()
