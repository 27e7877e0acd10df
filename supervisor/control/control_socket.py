"""Keeps the control socket open while the program runs, and creates it again when its file is removed.

Cleaners of old files (tmpreaper, systemd-tmpfiles) remove sockets and folders that have not changed for days.
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
"""Seconds between two checks of the file.  A check takes microseconds, in a thread."""


class ControlSocket:
    """Owns the listener behind the socket file."""

    def __init__(self, file: SocketFile, server: ControlServer) -> None:
        self._file = file
        self._server = server
        self._listener: asyncio.Server | None = None
        self._problem: str | None = None
        """Why the socket cannot be created at present."""

    async def open(self) -> None:
        """Start listening; raise `ConfigError` if that fails."""
        try:
            self._listener = await self._server.listen(self._file.bind())
        except ConfigError as error:
            self._problem = str(error)
            raise

    async def keep(self) -> None:
        """Create the socket again whenever its file is gone, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            if not await asyncio.to_thread(self._file.is_in_place):
                await self._reopen()

    async def close(self) -> None:
        """Stop listening and close all connections."""
        if self._listener is not None:
            self._listener.close()
        await self._server.close()
        self._file.remove()

    async def _reopen(self) -> None:
        try:
            # If this task is cancelled, the new socket is closed here and `close` removes its file.
            listening = await to_thread_uncancelled(self._file.bind_again, discard=socket.close)
        except ConfigError as error:
            self._log_problem(str(error))
            return
        try:
            listener = await self._server.listen(listening)
        except OSError as error:  # no descriptor or memory is left: the next check tries again
            listening.close()
            self._file.remove()
            self._log_problem(error.strerror or str(error))
            return
        old, self._listener = self._listener, listener
        if old is not None:
            old.close()  # clients can no longer reach it by the path; its open connections stay
        self._problem = None
        log.warning("control socket restored", path=str(self._file.path))

    def _log_problem(self, reason: str) -> None:
        if reason != self._problem:
            log.warning("control socket unavailable", reason=reason)
        self._problem = reason
