"""The `dev` command: a local server and a supervisor in one process, with a reload after each change of a handler file.

Without the package watchfiles it serves without reloads and logs a warning.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from supervisor.cli.options import announce
from supervisor.cli.server import opened
from supervisor.control.socket_path import ENDING, runtime_dir, too_long
from supervisor.devserver.app import DevServerSettings
from supervisor.exit_code import ExitCode
from supervisor.logs import log
from supervisor.logs.redaction import Mask
from supervisor.service import service
from supervisor.settings.loader import TO_WATCH, SettingsLoader, can_watch
from supervisor.settings.resolution import CommandLineValues, ConfigError, HostInfo, default_state_dir

PROJECT = "demo"
KEY = "mbx_local"
HEARTBEAT_INTERVAL = 2.0
"""Seconds.  Short, because a developer who tries a cancellation should see its effect soon."""

_NOT_INHERITED = ("PROJECT", "WORKER_ID", "CREDENTIALS_DIRECTORY")


def main(given: CommandLineValues, machine: HostInfo, *, host: str, port: int, database: Path | None) -> ExitCode:
    """Serve until Ctrl-C; raise `ConfigError` if the server cannot start."""
    server = DevServerSettings(host=host, port=port, database=database, heartbeat_interval=HEARTBEAT_INTERVAL)
    with tempfile.TemporaryDirectory(prefix="mobius-dev-") as state, service.loop_runner() as runner:
        return runner.run(develop(server, given, machine, Path(state)))


async def develop(server: DevServerSettings, given: CommandLineValues, machine: HostInfo, state: Path) -> ExitCode:
    """As `main`, in the running loop."""
    async with AsyncExitStack() as stack:
        url = (await opened(server, stack)).url
        environment = own_environment(os.environ)
        socket = _socket(environment, machine, state)
        configuration = SettingsLoader({**given, **_local(url, state, socket)}, environment, machine)
        settings = configuration.read()
        mask = Mask([KEY])
        log.configure(settings.log_level, settings.log_format, mask=mask)
        announce(greeting(url))
        if not settings.watch:
            structlog.get_logger("dev").warning("handlers are not reloaded when they change", reason=TO_WATCH)
        return await service.serve(settings, configuration.source, environment, mask, configuration.read)


def own_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the variables of the user's real supervisor."""
    kept = {name: value for name, value in environment.items() if not name.startswith("MOBIUS_")}
    return {name: value for name, value in kept.items() if name not in _NOT_INHERITED} | {"MOBIUS_API_KEY": KEY}


def greeting(url: str) -> str:
    """Return the text with the commands for another terminal."""
    return (
        f"development server on {url}; Ctrl-C finishes the running jobs and ends it, a second one stops the jobs\n\n"
        f"    export MOBIUS_BASE_URL={url} PROJECT={PROJECT} MOBIUS_API_KEY={KEY}\n"
        f"    mobius-supervisor submit ACTION --params '{{}}' --follow\n"
    )


def _socket(environment: Mapping[str, str], machine: HostInfo, state: Path) -> Path:
    """Return a socket path that the commands search, so preferably not below the temporary `state`."""
    try:
        searched = default_state_dir(environment, machine.home)
    except ConfigError:
        searched = state
    return runtime_dir(environment, searched) / f"dev-{machine.pid}{ENDING}"


def _local(url: str, state: Path, socket: Path) -> dict[str, tuple[str]]:
    """Return the settings that the user cannot choose."""
    return {
        "base_url": (url,),
        "project": (PROJECT,),
        "state_dir": (str(state),),
        **({} if too_long(socket) else {"socket": (str(socket),)}),
        "all_queues": ("on",),
        "watch": ("on" if can_watch() else "off",),
    }
