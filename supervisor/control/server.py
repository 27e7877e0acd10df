"""The ways in that the settings ask for, opened while the program serves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from supervisor.concurrency.helpers import HelperTasks
from supervisor.control.access import AccessPolicy, TcpPolicy, UnixSocketPolicy, read_token
from supervisor.control.connection_limit import Connection, ConnectionLimit, Phase
from supervisor.control.control_socket import ControlSocket
from supervisor.control.event_stream import StatusFeed
from supervisor.control.operator import OperatorApi
from supervisor.control.peer import Peer
from supervisor.control.refusal_log import RefusalLog
from supervisor.control.routes import ControlRoutes
from supervisor.control.socket_path import is_answered, runtime_dir, socket_path, too_long
from supervisor.linux.directory import Directory
from supervisor.settings.bounded_read import BoundedRead
from supervisor.settings.resolution import ConfigError
from supervisor.settings.settings import Settings
from supervisor.stats import Stats
from supervisor.text.printable import authority

log = structlog.get_logger("control")


@asynccontextmanager
async def serve_control(
    settings: Settings,
    environment: Mapping[str, str],
    steering: OperatorApi,
    ledger: Stats,
    is_of_a_job: Callable[[int], bool],
) -> AsyncIterator[None]:
    """Answer at the control socket, and at `--listen`, inside the block; raise `ConfigError`.

    `is_of_a_job` tells of a pid whether it is that of a job.
    """
    feed = StatusFeed(steering)

    def site(door: AccessPolicy) -> ControlRoutes:
        return ControlRoutes(steering, ledger, door, feed)

    async with AsyncExitStack() as stack:
        path = settings.socket or socket_path(runtime_dir(environment, settings.state_dir), settings.worker_id)
        control = ControlSocket(SocketFile(path), ControlServer(site(UnixSocketPolicy(is_of_a_job))))
        stack.push_async_callback(control.close)
        try:
            await control.open()
        except ConfigError as error:
            if settings.socket is not None:
                raise
            # Nobody has asked for it: jobs are worth more than a look at them.
            log.warning("control socket unavailable", reason=str(error))
        if settings.listen is None:
            _warn_of_idle_settings(settings)
        else:
            host, port = settings.listen
            listening = tcp_socket(host, port)
            file = settings.listen_token_file
            door = TcpPolicy(host, None if file is None else await _token_in(file), frozenset(settings.listen_names))
            await stack.enter_async_context(receiving(listening, site(door)))
            log.info("listening", page=f"http://{authority(*listening.getsockname()[:2])}/")
        beside = await stack.enter_async_context(HelperTasks())
        beside.start(control.keep)
        yield


def _warn_of_idle_settings(settings: Settings) -> None:
    if settings.listen_token_file is not None:
        log.warning("--listen-token-file does nothing without --listen")
    if settings.listen_names:
        log.warning("--listen-name does nothing without --listen")


async def _token_in(file: Path) -> str:
    return await BoundedRead(f"--listen-token-file: {file}", partial(read_token, file))()


BACKLOG = 64


class SocketFile:
    """Owns the file at which the control socket is found."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ours: os.stat_result | None = None
        # Open as long as the socket is: the socket's own name leads through this descriptor.  Since Python 3.13 event
        # loops look at that name, and fail when the number belongs to something else.
        self._folder: Directory | None = None

    def bind(self) -> socket.socket:
        """Listen at the path, for this user alone; raise `ConfigError`.  The caller closes the socket."""
        if problem := too_long(self.path):
            raise ConfigError(problem)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with ExitStack() as stack:
                folder = stack.enter_context(Directory.open(self.path.parent))
                self._refuse_what_is_no_leftover()
                end = _bound(folder, self.path.name)
                stack.pop_all()
        except OSError as error:
            raise _refused(self.path, error.strerror or str(error)) from error
        self._leave_folder()
        self._folder = folder
        with contextlib.suppress(OSError):  # it may be gone again, which the next check finds
            self._ours = folder.status(self.path.name)
        return end

    def bind_again(self) -> socket.socket:
        """Listen anew once the file is gone; raise `ConfigError`, also if another user's file took its place."""
        with contextlib.suppress(OSError):
            owner = self.path.lstat().st_uid
            if owner != os.geteuid():
                raise _refused(self.path, f"a file of uid {owner} is there")
        return self.bind()

    def is_in_place(self) -> bool:
        """True if the path leads to the socket that listens; its inode is not given away while it does."""
        try:
            with Directory.open(self.path.parent) as folder:
                return self._is_ours(folder)
        except OSError:
            return False

    def remove(self) -> None:
        """Remove the file, unless another one took its place."""
        with contextlib.suppress(OSError), Directory.open(self.path.parent) as folder:
            if self._is_ours(folder):
                folder.unlink(self.path.name)
        self._leave_folder()

    def _leave_folder(self) -> None:
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def _is_ours(self, folder: Directory) -> bool:
        return self._ours is not None and os.path.samestat(folder.status(self.path.name), self._ours)

    def _refuse_what_is_no_leftover(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise _refused(self.path, "something else is there")
            if is_answered(self.path):
                raise _refused(self.path, "another process listens there")


def tcp_socket(host: str, port: int) -> socket.socket:
    """Listen on an address; raise `ConfigError`."""
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[4][:2], family=address[0], backlog=BACKLOG)
    except OSError as error:
        where = authority(host, port)
        raise ConfigError(f"--listen: {where} cannot be listened on: {error.strerror or error}") from error


def _refused(path: Path, why: str) -> ConfigError:
    return ConfigError(f"the control socket {path} cannot be made: {why}")


def _bound(folder: Directory, name: str) -> socket.socket:
    # Made under another name and renamed: a client that finds it under its own can connect.
    unfinished = f".{secrets.token_hex(8)}"
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The file gets the mode of the socket (unix(7)); chmod(2) by name could be led elsewhere by a link.
        os.fchmod(end.fileno(), 0o600)
        end.bind(f"/proc/self/fd/{folder.descriptor}/{unfinished}")
        end.listen(BACKLOG)
        folder.rename(unfinished, name)
    except BaseException:
        end.close()
        raise
    return end


HEAD_TIMEOUT = 5.0
"""Seconds from the connection to the end of the request's head; no body is ever read."""
ANSWER_TIMEOUT = 10.0
"""Seconds from the head to the end of the answer, for what is not meant to last."""
CLOSE_TIMEOUT = 0.5
"""Seconds that answers get at the end of the program."""


@dataclass(slots=True, eq=False)
class _Open:
    """A connection that was let in, and what ends it."""

    connection: Connection
    peer: Peer
    transport: asyncio.Transport
    deadline: asyncio.TimerHandle


class ControlServer(web.Server):
    """Takes connections in."""

    def __init__(self, site: ControlRoutes) -> None:
        self._refusals = RefusalLog(site.name)
        super().__init__(
            self._receive,
            access_log=None,
            logger=self._refusals,
            keepalive_timeout=0,
            lingering_time=0,
            max_line_size=4096,
            max_field_size=8190,
        )
        self._site = site
        self._limit = ConnectionLimit()
        self._open: dict[Any, _Open] = {}
        self._answering: set[asyncio.Task[Any]] = set()

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        loop = asyncio.get_running_loop()
        peer = self._site.identify(transport.get_extra_info("socket"))
        connection, dropped = self._limit.admit(self._site.caller(peer), loop.time())
        if dropped is not None:
            self._refusals.count("dropped for newer ones")
            self._drop(dropped)
        if connection is None:
            self._refusals.count("no room")
            # Not at once: aiohttp's task would find that its connection was never made, and fail with a traceback.
            loop.call_soon(transport.abort)
            return
        self._open[handler] = _Open(connection, peer, transport, loop.call_later(HEAD_TIMEOUT, transport.abort))

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        if (lost := self._open.pop(handler, None)) is not None:
            lost.deadline.cancel()
            self._limit.remove(lost.connection)

    def _drop(self, connection: Connection) -> None:
        for each in self._open.values():
            if each.connection is connection:
                each.transport.abort()

    async def _receive(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            return await self._answer(request)
        finally:
            self._answering.discard(task)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        here = self._open.get(request.protocol)
        if here is None or request.transport is None:
            raise ConnectionResetError  # it was dropped since its head arrived; aiohttp expects this of it
        here.connection.phase = Phase.ANSWERING
        here.deadline.cancel()
        here.deadline = asyncio.get_running_loop().call_later(ANSWER_TIMEOUT, here.transport.abort)

        def give_time() -> None:
            here.connection.phase = Phase.LASTING
            here.deadline.cancel()

        return await self._site.answer(request, here.peer, give_time)

    async def close(self) -> None:
        """End all connections, and what is still at work for one that is gone."""
        await self.shutdown(CLOSE_TIMEOUT)
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        self._refusals.close()

    async def listen(self, end: socket.socket) -> asyncio.Server:
        """Answer what comes in through a listening socket, which this takes over."""
        loop = asyncio.get_running_loop()
        create = loop.create_unix_server if end.family == socket.AF_UNIX else loop.create_server
        return await create(self, sock=end)


@asynccontextmanager
async def receiving(end: socket.socket, site: ControlRoutes) -> AsyncIterator[None]:
    """Answer what comes in through a listening socket, which this takes over, inside the block."""
    reception = ControlServer(site)
    server = await reception.listen(end)
    try:
        yield
    finally:
        server.close()
        await reception.close()
