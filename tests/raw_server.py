"""An HTTP server that does as it is told, byte for byte: what a real one never does is what clients must survive."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Request:
    """One request as it came over the wire; of a body only what a test asks for."""

    line: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.line.split()[1]


Behaviour = Callable[["RawServer", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawServer:
    """Where it listens, and what it was asked."""

    behaviour: Behaviour
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self.behaviour(self, reader, writer)
        writer.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def read_head(self, reader: asyncio.StreamReader) -> Request:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.requests.append(Request(line, headers))
        self.asked.set()
        return self.requests[-1]

    async def read_request(self, reader: asyncio.StreamReader) -> Request:
        request = await self.read_head(reader)
        request.body = await reader.readexactly(int(request.headers.get("content-length", "0")))
        return request


@asynccontextmanager
async def raw_server(behaviour: Behaviour) -> AsyncIterator[RawServer]:
    server = RawServer(behaviour)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        listening.close()
        await server.close()
        await listening.wait_closed()


def answering(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Give every request this answer."""

    async def behave(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.read_request(reader)
            lines = (
                [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
                if status != 204
                else ["HTTP/1.1 204 No Content"]
            )
            lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()

    return behave


def saying(*pieces: bytes, then_silence: bool = False) -> Behaviour:
    """Answer a request by these bytes, then hang up or say nothing more."""

    async def behave(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if then_silence:
            await reader.read()  # until the client hangs up
            server.hung_up.set()

    return behave


def repeating(head: bytes, piece: bytes, pause: float = 0.0) -> Behaviour:
    """Answer by an endless repetition."""

    async def behave(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


async def resetting(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a request and reset the connection."""
    await server.read_request(reader)
    writer.transport.abort()


async def hashing(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept a request of any size; its `body` becomes the hash of what it was."""
    request = await server.read_head(reader)
    digest, left = hashlib.sha256(), int(request.headers["content-length"])
    while left:
        piece = await reader.read(min(left, 64 * 1024))
        if not piece:
            return
        digest.update(piece)
        left -= len(piece)
    request.body = digest.digest()
    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")


def refusing_at_the_head(answer: bytes) -> Behaviour:
    """Answer before the body was read, as proxies do that find it too big, and read it to its end."""

    async def behave(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_head(reader)
        writer.write(answer)
        while await reader.read(64 * 1024):
            pass

    return behave
