"""The control socket while the program serves: listened on, and made again when a cleaner has removed its file.

Cleaners of old files (tmpreaper, systemd-tmpfiles) take sockets and folders that have not changed for days.
"""

from __future__ import annotations

import asyncio
from socket import socket

import structlog

from supervisor.concurrency.helpers import to_thread_uncancelled
from supervisor.control.listening_socket import SocketFile
from supervisor.control.server import ControlServer
from supervisor.settings.resolution import ConfigError

log = structlog.get_logger("control")

CHECK_INTERVAL = 2.0
"""Seconds between two looks at the file; a look takes microseconds, in a thread."""


class ControlSocket:
    """Owns the server behind the file."""

    def __init__(self, file: SocketFile, reception: ControlServer) -> None:
        self._file = file
        self._reception = reception
        self._server: asyncio.Server | None = None
        self._problem: str | None = None
        """Why it cannot be made just now."""

    async def open(self) -> None:
        """Listen; raise `ConfigError`."""
        try:
            self._server = await self._reception.listen(self._file.bind())
        except ConfigError as error:
            self._problem = str(error)
            raise

    async def keep(self) -> None:
        """Make the socket again whenever its file is gone, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            if not await asyncio.to_thread(self._file.is_in_place):
                await self._reopen()

    async def close(self) -> None:
        """Listen no more, and end all connections."""
        if self._server is not None:
            self._server.close()
        await self._reception.close()
        self._file.remove()

    async def _reopen(self) -> None:
        try:
            end = await to_thread_uncancelled(
                self._file.bind_again, discard=socket.close
            )  # `close` removes the file then
        except ConfigError as error:
            self._note_problem(str(error))
            return
        try:
            server = await self._reception.listen(end)
        except OSError as error:  # no descriptor or memory is left: the next check tries again
            end.close()
            self._file.remove()
            self._note_problem(error.strerror or str(error))
            return
        old, self._server = self._server, server
        if old is not None:
            old.close()  # no path leads to it any more; its connections stay
        self._problem = None
        log.warning("control socket restored", path=str(self._file.path))

    def _note_problem(self, reason: str) -> None:
        if reason != self._problem:
            log.warning("control socket unavailable", reason=reason)
        self._problem = reason
