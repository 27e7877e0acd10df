"""A request class that is cheaper than aiohttp's: headers are prepared once, and small bodies are written directly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import hdrs
from aiohttp.connector import Connection
from multidict import CIMultiDict
from yarl import URL

from supervisor.proxy import Proxy

MAX_SMALL_BODY_BYTES = 16 * 1024
"""Limit for a body that is written directly after its head."""


class ProxiedRequest(aiohttp.ClientRequest):
    """A request that sends a proxy only its own credentials.

    When aiohttp opens a tunnel, it would send the proxy all headers of the session, including the API key.
    """

    def update_proxy(self, proxy: URL | None, proxy_auth: Any, proxy_headers: Any) -> None:
        if proxy is None:
            self.proxy = self.proxy_auth = self.proxy_headers = None
            return
        given = proxy_headers or {}
        own = CIMultiDict({name: given[name] for name in (hdrs.PROXY_AUTHORIZATION,) if name in given})
        super().update_proxy(proxy, proxy_auth, own)


class Request(ProxiedRequest):
    """Takes its session's headers as they are, `Host` among them, and writes a small body without a task for that.

    aiohttp's own finds out each time what is the same in all of ours, and before Python 3.12 a task costs a turn of
    the loop.
    """

    _small: bytes | None = None  # its body, if it is small

    def update_headers(self, headers: Any) -> None:
        """`headers` is a copy of the session's that was made for this request."""
        assert isinstance(headers, CIMultiDict), headers
        self.headers = headers

    def update_body_from_data(self, body: Any, *more: Any) -> None:
        if isinstance(body, bytes) and len(body) <= MAX_SMALL_BODY_BYTES:
            self._small = body
            self.headers[hdrs.CONTENT_LENGTH] = str(len(body))
        else:
            super().update_body_from_data(body, *more)

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        if self._small is None:
            return await super().send(conn)
        # Wait for the next iteration of the loop, so that calls of several slots are sent together.  An idle server
        # wakes up for each separate call.
        await asyncio.sleep(0)
        assert conn.protocol is not None
        if conn.protocol.writing_paused:  # the head would wait in the buffer, and the body would not
            self._body = aiohttp.BytesPayload(self._small)
            return await super().send(conn)
        response = await super().send(conn)  # the head alone
        assert conn.transport is not None  # otherwise the head could not have been written
        conn.transport.write(self._small)
        return response


def way_through(proxy: Proxy | None, url: URL, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the arguments of a request with `headers` through `proxy`.

    In a tunnel, only the proxy gets its credentials.  Without a tunnel they go with each request, because aiohttp would
    send them only with the first request of a connection.
    """
    if proxy is None:
        return {"headers": headers}
    mine = {} if proxy.authorization is None else {hdrs.PROXY_AUTHORIZATION: proxy.authorization}
    if url.scheme == "https":
        return {"headers": headers, "proxy": proxy.url, "proxy_headers": mine}
    return {"headers": {**(headers or {}), **mine}, "proxy": proxy.url}
