"""A request to the job server, made with less work than aiohttp's own: what precedes its body is known beforehand."""

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
"""Bytes of a body that is given to the kernel at once, right after its head."""


class ProxiedRequest(aiohttp.ClientRequest):
    """A request that tells a proxy nothing but what is meant for it.

    aiohttp gives a proxy all headers of the session, the API key among them, when it asks for a tunnel.
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
        # In the next turn of the loop, so that calls of several slots follow each other: a server that has nothing to
        # do must be woken for each that comes alone.
        await asyncio.sleep(0)
        assert conn.protocol is not None
        if conn.protocol.writing_paused:  # the head would have to wait, and the body would not
            self._body = aiohttp.BytesPayload(self._small)
            return await super().send(conn)
        response = await super().send(conn)  # the head alone
        assert conn.transport is not None  # or the head could not have been written
        conn.transport.write(self._small)
        return response


def way_through(proxy: Proxy | None, url: URL, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The arguments of a request that take it through `proxy`, with `headers` of its own.

    In a tunnel only the proxy gets the credentials for it.  Without one they go with each request, for aiohttp would
    send them with the first on a connection only.
    """
    if proxy is None:
        return {"headers": headers}
    mine = {} if proxy.authorization is None else {hdrs.PROXY_AUTHORIZATION: proxy.authorization}
    if url.scheme == "https":
        return {"headers": headers, "proxy": proxy.url, "proxy_headers": mine}
    return {"headers": {**(headers or {}), **mine}, "proxy": proxy.url}
