"""The `server` command: the local development server alone, until SIGINT or SIGTERM.  No part of a worker."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sqlite3
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from supervisor.cli.options import announce
from supervisor.devserver import fault_injector as saboteur
from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.devserver.faults import FaultScript, FaultScriptError, parse_text
from supervisor.settings.resolution import ConfigError
from supervisor.text.decoding import NotText, decode_text
from supervisor.text.printable import authority


async def serve(settings: DevServerSettings, key_hint: str) -> None:
    """Serve until told to stop; `key_hint` is the assignment that gives a worker the key.

    Raises `ConfigError` when the address or the database cannot be had.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        server = await opened(settings, stack)
        announce(greeting(server.url, key_hint))
        if settings.faults is not None:
            _show(saboteur.log)
        await stop.wait()
        if settings.faults is not None:
            announce(tally(server.faults_injected))


async def opened(settings: DevServerSettings, stack: AsyncExitStack) -> DevServer:
    """The server, open until `stack` is closed; raises `ConfigError` when the address or the database cannot be had."""
    try:
        return await stack.enter_async_context(DevServer(settings))
    except OSError as error:
        where = authority(settings.host, settings.port)
        # asyncio's own sentence names the address again; the numbers of getaddrinfo(3) are none of errno(3).
        number = None if isinstance(error, socket.gaierror) else error.errno
        why = os.strerror(number) if number else error.strerror or str(error)
        advice = "; give another --port, or --port 0 for a free one" if number == errno.EADDRINUSE else ""
        raise ConfigError(f"cannot serve on {where}: {why}{advice}") from error
    except sqlite3.Error as error:
        raise ConfigError(f"cannot use the database {settings.database}: {error}") from error


def read_faults(path: Path) -> FaultScript:
    """The fault script in a file; raises `ConfigError`."""
    try:
        return parse_text(decode_text(path.read_bytes()), is_json=path.suffix == ".json")
    except OSError as error:
        raise ConfigError(f"--faults: {path} cannot be read: {error.strerror or error}") from error
    except (NotText, FaultScriptError) as error:
        raise ConfigError(f"--faults: {path}: {error}") from error


def tally(injected: Mapping[str, int]) -> str:
    """The line that says how often what went wrong."""
    return f"faults injected: {', '.join(f'{count} {kind}' for kind, count in sorted(injected.items())) or 'none'}"


def _show(log: logging.Logger) -> None:
    """Let who runs the server see what happens."""
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log.addHandler(shown)
    log.setLevel(logging.INFO)


def greeting(url: str, key_hint: str) -> str:
    """The line with the address, and what points a worker at it."""
    return f"development server on {url}\n\n    export MOBIUS_BASE_URL={url} PROJECT=demo {key_hint}\n"
