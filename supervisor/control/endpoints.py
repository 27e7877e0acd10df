"""Opens the endpoints of operators: the control socket, and the TCP address of `--listen`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import structlog

from supervisor.concurrency.helpers import HelperTasks
from supervisor.control.access import AccessPolicy, TcpPolicy, UnixSocketPolicy, read_token
from supervisor.control.control_socket import ControlSocket
from supervisor.control.event_stream import StatusFeed
from supervisor.control.listening_socket import SocketFile, tcp_socket
from supervisor.control.operator import OperatorApi
from supervisor.control.routes import ControlRoutes
from supervisor.control.server import ControlServer, receiving
from supervisor.control.socket_path import runtime_dir, socket_path
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
