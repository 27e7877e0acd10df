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
    operator: OperatorApi,
    stats: Stats,
    belongs_to_job: Callable[[int], bool],
) -> AsyncIterator[None]:
    """Serve the control socket and the `--listen` address inside the block; raise `ConfigError` if that fails.

    `belongs_to_job` returns True for the pid of a job's process.
    """
    feed = StatusFeed(operator)

    def routes(policy: AccessPolicy) -> ControlRoutes:
        return ControlRoutes(operator, stats, policy, feed)

    async with AsyncExitStack() as stack:
        path = settings.socket or socket_path(runtime_dir(environment, settings.state_dir), settings.worker_id)
        control = ControlSocket(SocketFile(path), ControlServer(routes(UnixSocketPolicy(belongs_to_job))))
        stack.push_async_callback(control.close)
        try:
            await control.open()
        except ConfigError as error:
            if settings.socket is not None:
                raise
            # The operator did not ask for a socket: running jobs matters more than showing them.
            log.warning("control socket unavailable", reason=str(error))
        if settings.listen is None:
            _warn_of_unused_settings(settings)
        else:
            host, port = settings.listen
            listening = tcp_socket(host, port)
            file = settings.listen_token_file
            policy = TcpPolicy(host, None if file is None else await _token_in(file), frozenset(settings.listen_names))
            await stack.enter_async_context(receiving(listening, routes(policy)))
            log.info("listening", page=f"http://{authority(*listening.getsockname()[:2])}/")
        helpers = await stack.enter_async_context(HelperTasks())
        helpers.start(control.keep)
        yield


def _warn_of_unused_settings(settings: Settings) -> None:
    if settings.listen_token_file is not None:
        log.warning("--listen-token-file has no effect without --listen")
    if settings.listen_names:
        log.warning("--listen-name has no effect without --listen")


async def _token_in(file: Path) -> str:
    return await BoundedRead(f"--listen-token-file: {file}", partial(read_token, file))()
