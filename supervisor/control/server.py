"""The ways in that the settings ask for, opened while the program serves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from supervisor.control.connection_limit import Connection, ConnectionLimit, Phase
from supervisor.control.peer import Peer
from supervisor.control.refusal_log import RefusalLog
from supervisor.control.routes import ControlRoutes

log = structlog.get_logger("control")


HEAD_TIMEOUT = 5.0
"""Seconds from the connection to the end of the request's head; no body is ever read."""
ANSWER_TIMEOUT = 10.0
"""Seconds from the head to the end of the answer, for what is not meant to last."""
CLOSE_TIMEOUT = 0.5
"""Seconds that answers get at the end of the program."""


@dataclass(slots=True, eq=False)
class _Open:
    """A connection that was let in, and what ends it."""

    connection: Connection
    peer: Peer
    transport: asyncio.Transport
    deadline: asyncio.TimerHandle


class ControlServer(web.Server):
    """Takes connections in."""

    def __init__(self, site: ControlRoutes) -> None:
        self._refusals = RefusalLog(site.name)
        super().__init__(
            self._receive,
            access_log=None,
            logger=self._refusals,
            keepalive_timeout=0,
            lingering_time=0,
            max_line_size=4096,
            max_field_size=8190,
        )
        self._site = site
        self._limit = ConnectionLimit()
        self._open: dict[Any, _Open] = {}
        self._answering: set[asyncio.Task[Any]] = set()

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        loop = asyncio.get_running_loop()
        peer = self._site.identify(transport.get_extra_info("socket"))
        connection, dropped = self._limit.admit(self._site.caller(peer), loop.time())
        if dropped is not None:
            self._refusals.count("dropped for newer ones")
            self._drop(dropped)
        if connection is None:
            self._refusals.count("no room")
            # Not at once: aiohttp's task would find that its connection was never made, and fail with a traceback.
            loop.call_soon(transport.abort)
            return
        self._open[handler] = _Open(connection, peer, transport, loop.call_later(HEAD_TIMEOUT, transport.abort))

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        if (lost := self._open.pop(handler, None)) is not None:
            lost.deadline.cancel()
            self._limit.remove(lost.connection)

    def _drop(self, connection: Connection) -> None:
        for each in self._open.values():
            if each.connection is connection:
                each.transport.abort()

    async def _receive(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            return await self._answer(request)
        finally:
            self._answering.discard(task)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        here = self._open.get(request.protocol)
        if here is None or request.transport is None:
            raise ConnectionResetError  # it was dropped since its head arrived; aiohttp expects this of it
        here.connection.phase = Phase.ANSWERING
        here.deadline.cancel()
        here.deadline = asyncio.get_running_loop().call_later(ANSWER_TIMEOUT, here.transport.abort)

        def give_time() -> None:
            here.connection.phase = Phase.LASTING
            here.deadline.cancel()

        return await self._site.answer(request, here.peer, give_time)

    async def close(self) -> None:
        """End all connections, and what is still at work for one that is gone."""
        await self.shutdown(CLOSE_TIMEOUT)
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        self._refusals.close()

    async def listen(self, end: socket.socket) -> asyncio.Server:
        """Answer what comes in through a listening socket, which this takes over."""
        loop = asyncio.get_running_loop()
        create = loop.create_unix_server if end.family == socket.AF_UNIX else loop.create_server
        return await create(self, sock=end)


@asynccontextmanager
async def receiving(end: socket.socket, site: ControlRoutes) -> AsyncIterator[None]:
    """Answer what comes in through a listening socket, which this takes over, inside the block."""
    reception = ControlServer(site)
    server = await reception.listen(end)
    try:
        yield
    finally:
        server.close()
        await reception.close()
