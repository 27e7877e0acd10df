"""The `server` command: runs only the local development server, until SIGINT or SIGTERM.  Not part of a worker."""

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
from supervisor.devserver import fault_injector
from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.devserver.faults import FaultScript, FaultScriptError, parse_text
from supervisor.settings.resolution import ConfigError
from supervisor.text.decoding import NotText, decode_text
from supervisor.text.printable import authority


async def serve(settings: DevServerSettings, key_hint: str) -> None:
    """Serve until a signal; `key_hint` is the assignment that gives a worker the key.

    Raise `ConfigError` if the address or the database cannot be opened.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        server = await opened(settings, stack)
        announce(greeting(server.url, key_hint))
        if settings.faults is not None:
            _log_to_terminal(fault_injector.log)
        await stop.wait()
        if settings.faults is not None:
            announce(tally(server.faults_injected))


async def opened(settings: DevServerSettings, stack: AsyncExitStack) -> DevServer:
    """Return the server, open until `stack` closes; raise `ConfigError` if the address or database cannot be opened."""
    try:
        return await stack.enter_async_context(DevServer(settings))
    except OSError as error:
        where = authority(settings.host, settings.port)
        # asyncio's own message repeats the address; the error numbers of getaddrinfo(3) are not those of errno(3).
        number = None if isinstance(error, socket.gaierror) else error.errno
        why = os.strerror(number) if number else error.strerror or str(error)
        advice = "; give another --port, or --port 0 for a free one" if number == errno.EADDRINUSE else ""
        raise ConfigError(f"cannot serve on {where}: {why}{advice}") from error
    except sqlite3.Error as error:
        raise ConfigError(f"cannot use the database {settings.database}: {error}") from error


def read_faults(path: Path) -> FaultScript:
    """Return the fault script in a file; raise `ConfigError` if it is not valid."""
    try:
        return parse_text(decode_text(path.read_bytes()), is_json=path.suffix == ".json")
    except OSError as error:
        raise ConfigError(f"--faults: {path} cannot be read: {error.strerror or error}") from error
    except (NotText, FaultScriptError) as error:
        raise ConfigError(f"--faults: {path}: {error}") from error


def tally(injected: Mapping[str, int]) -> str:
    """Return the line with the number of injected faults of each kind."""
    return f"faults injected: {', '.join(f'{count} {kind}' for kind, count in sorted(injected.items())) or 'none'}"


def _log_to_terminal(log: logging.Logger) -> None:
    """Print the lines of a logger on standard error."""
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log.addHandler(shown)
    log.setLevel(logging.INFO)


def greeting(url: str, key_hint: str) -> str:
    """Return the text with the address and the variables of a worker for it."""
    return f"development server on {url}\n\n    export MOBIUS_BASE_URL={url} PROJECT=demo {key_hint}\n"
