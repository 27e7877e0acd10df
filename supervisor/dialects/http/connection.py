"""Connections to the job server that are closed when they carry unexpected bytes.

Surplus bytes after an answer would otherwise be taken for the answer to the next request.
Tested by tests/dialects/http/test_client.py.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey

from supervisor.dialects.http.resolver import Resolver

KEEPALIVE_TIMEOUT = 75.0
"""Seconds that an idle connection is kept open."""
DEAD_PEER_TIMEOUT = 25
"""Seconds until a connection without acknowledgements is closed, for example that of an open poll."""
_END_OF_HEAD = b"\r\n\r\n"
_PROBE = b"HTTP/1.1 204 No Content\r\n\r\n"
"""One complete answer, unless the parser already holds the beginning of another."""


class AnswerReader(ResponseHandler):
    """The asyncio protocol of one connection."""

    _head_size = 0
    """Bytes of the answer's head."""
    _received = 0
    """Bytes of the answer so far."""

    def data_received(self, data: bytes) -> None:
        parser, payload = self._parser, self._payload
        if parser is None:  # the connection is idle
            if data and self.transport is not None:
                self.transport.close()
            return
        if not self._received:
            self._head_size = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        self._received = received = self._received + len(data)
        super().data_received(data)  # the end of the answer may release the connection
        payload = self._payload or payload
        if payload is None or not payload.is_eof():
            return
        # Fast check for most answers: the head is in the first piece, the body is not encoded, the sizes match.
        if received - self._head_size == payload.total_bytes and self._head_size >= len(_END_OF_HEAD):
            return
        if self._should_close or not _has_surplus(parser):
            return
        self.force_close()
        if self._parser is None and self.transport is not None:
            self.transport.close()

    def end_answer(self) -> None:
        """Expect no bytes until the next request, which sets a new parser."""
        self._parser = self._payload = None
        self._received = 0


def _has_surplus(parser: Any) -> bool:
    """True if bytes follow the complete answer.  aiohttp itself detects a complete second answer."""
    try:
        messages, _, _ = parser.feed_data(_PROBE)
    except Exception:  # noqa: BLE001 - a parser may raise anything for invalid bytes
        return True
    return [(message.code, len(message.headers)) for message, _ in messages] != [(204, 0)]


class Connector(aiohttp.TCPConnector):
    """Opens, keeps and reuses connections."""

    def __init__(self) -> None:
        # No limit: the slots bound the number of calls, and a heartbeat must not wait in a queue.
        super().__init__(limit=0, keepalive_timeout=KEEPALIVE_TIMEOUT, resolver=Resolver(), socket_factory=_socket)
        factory: Any = partial(AnswerReader, loop=asyncio.get_running_loop())
        self._factory = factory  # aiohttp has no public option for the protocol class

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        assert isinstance(protocol, AnswerReader)
        super()._release(key, protocol, should_close=should_close)
        protocol.end_answer()


def _socket(address: Any) -> socket.socket:
    """Open a socket that detects a dead peer (tcp(7))."""
    family, kind, protocol, _, _ = address
    connection = socket.socket(family, kind, protocol)
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, DEAD_PEER_TIMEOUT - 3 * (DEAD_PEER_TIMEOUT // 5)),
        (socket.TCP_KEEPINTVL, DEAD_PEER_TIMEOUT // 5),
        (socket.TCP_KEEPCNT, 3),
        (socket.TCP_USER_TIMEOUT, DEAD_PEER_TIMEOUT * 1000),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    return connection
