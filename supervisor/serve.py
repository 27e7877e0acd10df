"""The `server` command: the local development server alone, until SIGINT or SIGTERM.  No part of a worker."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from contextlib import AsyncExitStack

import click

from supervisor.config import ConfigError
from supervisor.devserver.app import DevServer, DevServerSettings


async def serve(settings: DevServerSettings, key_hint: str) -> None:
    """Serve until told to stop; `key_hint` is the assignment that gives a worker the key.

    Raises `ConfigError` when the address or the database cannot be had.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        server = await _open(settings, stack)
        click.echo(greeting(server.url, key_hint))
        await stop.wait()


async def _open(settings: DevServerSettings, stack: AsyncExitStack) -> DevServer:
    try:
        return await stack.enter_async_context(DevServer(settings))
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise ConfigError(f"cannot serve on {where}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise ConfigError(f"cannot use the database {settings.database}: {error}") from error


def greeting(url: str, key_hint: str) -> str:
    """The line with the address, and what points a worker at it."""
    return f"development server on {url}\n\n    export MOBIUS_BASE_URL={url} PROJECT=demo {key_hint}\n"
