"""The server behind one socket: how many connections at once, and how long each may take.

Each connection is one request.  A client that is slow to ask, or to read the answer, is cut off, and so holds its
place for no longer than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import AF_UNIX, socket
from typing import Any

from aiohttp import web

from supervisor.control.peer import Peer
from supervisor.control.site import Site

MOST = 32
"""Connections at once."""
LONGEST_REQUEST = 10.0
"""Seconds from the connection to the end of the answer, for what is not meant to last."""
LAST_ANSWERS = 0.5
"""Seconds that answers get at the end of the program."""


class Reception(web.Server):
    """Takes connections in."""

    def __init__(self, site: Site) -> None:
        super().__init__(
            self._receive,
            access_log=None,
            keepalive_timeout=0,
            lingering_time=0,
            max_line_size=4096,
            max_field_size=8190,
        )
        self._site = site
        self._deadlines: dict[Any, asyncio.TimerHandle] = {}
        self._peers: dict[Any, Peer] = {}
        self._answering: set[asyncio.Task[Any]] = set()

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._deadlines) >= MOST:
            transport.abort()
            return
        self._peers[handler] = self._site.identify(transport.get_extra_info("socket"))
        self._deadlines[handler] = asyncio.get_running_loop().call_later(LONGEST_REQUEST, transport.abort)

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        if handler in self._deadlines:
            self._deadlines.pop(handler).cancel()
            del self._peers[handler]

    async def _receive(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        connection = request.protocol
        self._answering.add(task)
        try:
            return await self._site.answer(request, self._peers[connection], self._deadlines[connection].cancel)
        finally:
            self._answering.discard(task)

    async def close(self) -> None:
        """End all connections, and what is still at work for one that is gone."""
        await self.shutdown(LAST_ANSWERS)
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)


@asynccontextmanager
async def receiving(end: socket, site: Site) -> AsyncIterator[None]:
    """Answer what comes in through a listening socket, which this takes over, inside the block."""
    loop = asyncio.get_running_loop()
    reception = Reception(site)
    create = loop.create_unix_server if end.family == AF_UNIX else loop.create_server
    server = await create(reception, sock=end)
    try:
        yield
    finally:
        server.close()
        await reception.close()
