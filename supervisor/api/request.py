"""A request to the job server, made with less work than aiohttp's own: what precedes its body is known beforehand."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiohttp import hdrs
from aiohttp.connector import Connection
from multidict import CIMultiDict

SMALL = 16 * 1024
"""Bytes of a body that is given to the kernel at once, right after its head."""


class Request(aiohttp.ClientRequest):
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
        if isinstance(body, bytes) and len(body) <= SMALL:
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
