"""The ways in that the settings ask for, opened while the program serves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

import structlog

from supervisor.control.door import Door, TcpDoor, UnixDoor
from supervisor.control.feed import Feed
from supervisor.control.listener import tcp_socket, unix_socket
from supervisor.control.place import folder, socket_path
from supervisor.control.reception import receiving
from supervisor.control.site import Site
from supervisor.control.steering import Steering
from supervisor.control.token import read_token
from supervisor.ledger import Ledger
from supervisor.settings.config import ConfigError
from supervisor.settings.settings import Settings
from supervisor.text.authority import authority

log = structlog.get_logger("control")


@asynccontextmanager
async def controlled(
    settings: Settings,
    environment: Mapping[str, str],
    steering: Steering,
    ledger: Ledger,
    is_of_a_job: Callable[[int], bool],
) -> AsyncIterator[None]:
    """Answer at the control socket, and at `--listen`, inside the block; raise `ConfigError`.

    `is_of_a_job` tells of a pid whether it is that of a job.
    """
    feed = Feed(steering)

    def site(door: Door) -> Site:
        return Site(steering, ledger, door, feed)

    with ExitStack() as sockets:
        async with AsyncExitStack() as receptions:
            path = settings.socket or socket_path(folder(environment, settings.state_dir), settings.worker_id)
            try:
                end = sockets.enter_context(unix_socket(path))
            except ConfigError as error:
                if settings.socket is not None:
                    raise
                # Nobody has asked for it: jobs are worth more than a look at them.
                log.warning("nothing can be seen or steered", reason=str(error))
            else:
                await receptions.enter_async_context(receiving(end, site(UnixDoor(is_of_a_job))))
            if settings.listen is None:
                _warn_of_idle_settings(settings)
            else:
                host, port = settings.listen
                listening = tcp_socket(host, port)
                file = settings.listen_token_file
                door = TcpDoor(host, None if file is None else read_token(file), frozenset(settings.listen_names))
                await receptions.enter_async_context(receiving(listening, site(door)))
                log.info("listening", page=f"http://{authority(*listening.getsockname()[:2])}/")
            yield


def _warn_of_idle_settings(settings: Settings) -> None:
    if settings.listen_token_file is not None:
        log.warning("--listen-token-file does nothing without --listen")
    if settings.listen_names:
        log.warning("--listen-name does nothing without --listen")
