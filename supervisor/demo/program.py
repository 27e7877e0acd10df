"""The supervisor process of the demo, with its own state directory and log."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from supervisor.linux.syscalls import die_with_parent

HANDLERS = Path(__file__).parents[2] / "handlers"
WORKERS = 2
_STOP_TIMEOUT = 10.0
"""Seconds for the supervisor to stop after SIGQUIT; its own limit is half of this."""
_NOT_OURS = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"})


@asynccontextmanager
async def program(url: str, project: str, api_key: str, folder: Path) -> AsyncIterator[Process]:
    """Run the supervisor inside the block, and stop it after the block.  See `log_of` for its log."""
    options = {"base-url": url, "project": project, "handlers": HANDLERS, "state-dir": folder / "state"}
    with log_of(folder).open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "supervisor", "run", "--workers", str(WORKERS), "--log-format", "json"),
            *(part for name, value in options.items() for part in (f"--{name}", str(value))),
            env=_environment(api_key),
            stdin=DEVNULL,
            stdout=log,
            stderr=log,
            # If the demo is killed, the kernel kills the supervisor.
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        await _stop(process)


def log_of(folder: Path) -> Path:
    return folder / "supervisor.log"


def _environment(api_key: str) -> dict[str, str]:
    """Return this process's environment without settings of the user's own supervisor."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MOBIUS_")}
    return {name: value for name, value in kept.items() if name not in _NOT_OURS} | {"MOBIUS_API_KEY": api_key}


async def _stop(process: Process) -> None:
    if process.returncode is not None:
        return
    try:
        process.send_signal(signal.SIGQUIT)
        async with asyncio.timeout(_STOP_TIMEOUT):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
