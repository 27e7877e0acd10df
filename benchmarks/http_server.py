"""The HTTP of the benchmark server: one connection, byte by byte.

Only what the measured clients send is understood.  Bodies beyond `KEPT` are counted and thrown away, so that a result
of any size costs no memory here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

KEPT = 1024 * 1024
"""Bytes of a body that are kept; of more only the size is known."""
_STATUS = {200: "OK", 204: "No Content", 404: "Not Found", 409: "Conflict"}


def answer(status: int, body: bytes = b"") -> bytes:
    """A whole answer as it goes over the wire."""
    head = f"HTTP/1.1 {status} {_STATUS[status]}\r\n"
    if status != 204:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    method: str
    path: str
    body: bytes
    size: int


class Application(Protocol):
    """What a connection tells of."""

    delay: float

    def heard(self, connection: Connection, call: Call) -> None: ...
    def closed(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """One client; it sends its next request when it has the answer to the last."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._buffer = b""
        self._skipped: Call | None = None
        """A request whose body is thrown away as it comes."""
        self._left = 0
        """Bytes of it that are still to come."""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own kind

    def connection_lost(self, _error: Exception | None) -> None:
        self.stop_waiting()
        self._application.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._skipped is not None:
            self._skip(len(data))
            return
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        size = _content_length(self._buffer[:end])
        method, path = self._buffer[: self._buffer.index(b"\r\n")].decode().split(" ")[:2]
        have = len(self._buffer) - end - 4
        if have >= size:
            body, self._buffer = self._buffer[end + 4 :], b""
            self._application.heard(self, Call(method, path, body, size))
        elif size > KEPT:
            self._buffer, self._skipped = b"", Call(method, path, b"", size)
            self._left = size
            self._skip(have)

    def _skip(self, count: int) -> None:
        assert self._skipped is not None
        self._left -= count
        if self._left <= 0:
            call, self._skipped = self._skipped, None
            self._application.heard(self, call)

    def reply(self, whole: bytes, *, at_once: bool = False) -> None:
        """Answer the request, after half of the round trip that is pretended."""
        if self._application.delay and not at_once:
            asyncio.get_running_loop().call_later(self._application.delay / 2, self._transport.write, whole)
        else:
            self._transport.write(whole)

    def wait(self, seconds: float, then: Callable[[Connection], None]) -> None:
        """Call `then` after so long, unless `stop_waiting` comes first."""
        self._timer = asyncio.get_running_loop().call_later(seconds, then, self)

    def stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _content_length(head: bytes) -> int:
    at = head.find(b"Content-Length:")
    if at < 0:
        at = head.lower().find(b"content-length:")
    if at < 0:
        return 0
    end = head.find(b"\r\n", at)
    return int(head[at + 15 : end if end >= 0 else len(head)])
