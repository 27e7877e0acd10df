"""A cable between a supervisor and its server: it may speak TLS, and be cut so that no end is told (half-open)."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import ssl
import struct
from contextlib import suppress
from urllib.parse import urlsplit

SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
_DROP_ALL = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # bpf(4): return 0 bytes of every packet
_PROGRAM = struct.pack("HP", 1, ctypes.addressof(_DROP_ALL))


class Cable:
    """Forwards what comes in at `port`.  Whatever arrives while it is cut is dropped by the kernel, unacknowledged."""

    def __init__(self, server_url: str, tls: ssl.SSLContext | None = None) -> None:
        target = urlsplit(server_url)
        self.heard = bytearray()
        """What the supervisor said, as the server gets it."""
        self.connections = 0
        """How many were made, TLS included."""
        self._target = (target.hostname, target.port)
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._whole = asyncio.Event()
        self._whole.set()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    def cut(self) -> None:
        """From now on nothing arrives, in neither direction, and nobody is told."""
        self._whole.clear()
        for end in (self._listener, *(writer.get_extra_info("socket") for writer in self._ends)):
            end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, _PROGRAM)

    def mend(self) -> None:
        """Whatever is sent again arrives."""
        for end in (self._listener, *(writer.get_extra_info("socket") for writer in self._ends)):
            with suppress(OSError):  # of a connection that has come since then, if it is the listener's no more
                end.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        self._whole.set()

    def forget(self) -> None:
        """What every box between two networks does now and then: the connections of now lead nowhere, new ones work."""
        for writer in self._ends:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, _PROGRAM)
        for task in self._tasks:
            task.cancel()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._ends.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        from_server, to_server = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as group:
                back = group.create_task(self._carry(from_server, writer))
                await self._carry(reader, to_server, self.heard)
                back.cancel()
            writer.close()
            self._ends.discard(writer)
        except asyncio.CancelledError:
            pass  # forgotten: the client's end stays open, for it is not told
        finally:
            self._tasks.discard(task)
            to_server.close()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray | None = None
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(64 * 1024):
                await self._whole.wait()
                if heard is not None:
                    heard += data
                writer.write(data)
                await writer.drain()
            writer.close()

    async def __aenter__(self) -> Cable:
        self._serving = await asyncio.start_server(self._connect, sock=self._listener, ssl=self._tls)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._serving.close()
        for task in self._tasks:
            task.cancel()
        for writer in self._ends:
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)
