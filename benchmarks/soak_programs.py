"""The two programs of the soak, each a real process: the server with its faults, the supervisor with its jobs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from supervisor.control.client import call

PROJECT = "soak"
WORKERS = 4
FAMILY = WORKERS + 2
"""Processes of a supervisor at rest: the zygote, a child for each slot and a spare one."""
HANDLERS = Path(__file__).with_name("soak_handlers")
LEASE_TTL = 6
"""Seconds; of them the worker believes in one less."""
PATIENCE = 30.0
"""Seconds that a program may take to start or to stop."""

_PROGRAM = (sys.executable, "-m", "supervisor")
_OPEN = re.compile(r"^process_open_fds (\S+)$", re.MULTILINE)
_EXPIRED = re.compile(r"fault: expire_lease on \w+ of job (\S+), attempt (\d+)")


class Server:
    """The development server with a fault script."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "server.db"
        self.url = ""
        self.tally: dict[str, int] = {}
        self._folder = folder
        self._process: Process | None = None

    async def start(self, script: dict[str, Any]) -> None:
        faults = self._folder / "faults.json"
        faults.write_text(json.dumps(script))
        options = {"port": 0, "db": self.database, "faults": faults, "heartbeat-interval": 1, "lease-ttl": LEASE_TTL}
        with self._log.open("wb") as log:
            self._process = await _spawn("server", options, stdout=PIPE, stderr=log)
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            self.url = (await self._process.stdout.readline()).split()[-1].decode()

    async def stop(self) -> None:
        """Have it end, and tell which faults it has injected."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            told, _ = await asyncio.wait_for(self._process.communicate(), PATIENCE)
            found = re.findall(r"(\d+) (\w+)", told.decode().rpartition("faults injected:")[2])
            self.tally = {kind: int(count) for count, kind in found}

    @property
    def expired(self) -> set[str]:
        """The attempts whose lease ran out by a fault, as tickets name them."""
        return {f"{job}.{attempt}" for job, attempt in _EXPIRED.findall(self._log.read_text())}

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"


class Supervisor:
    """The program under test; the same worker however often it is killed and started again."""

    def __init__(self, url: str, folder: Path) -> None:
        self.killed_at: list[float] = []
        self.marks: set[int] = set()
        self._url = url
        self._folder = folder
        self._process: Process | None = None

    @property
    def log(self) -> Path:
        return self._folder / "supervisor.log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How it ended; None while it runs."""
        assert self._process is not None
        return self._process.returncode

    async def start(self) -> None:
        options = {
            "base-url": self._url,
            "project": PROJECT,
            "handlers": HANDLERS,
            "workers": WORKERS,
            "worker-id": "soak",
            "state-dir": self._folder / "state",
            "lease-ttl": f"{LEASE_TTL - 1}s",
            "wait-seconds": 2,
            "spool-after": "500ms",  # so that jobs of both kinds are met: on disk before the report, and not
            "log-format": "json",
            "socket": self._socket,
        }
        with self.log.open("ab") as log:
            self._process = await _spawn("run", options, stdout=log, stderr=log)

    async def kill_and_start_again(self) -> None:
        assert self._process is not None
        self.killed_at.append(time.time())
        self._process.kill()
        await self._process.wait()
        await self.start()

    async def stop(self) -> int:
        """Drain it; return its exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
        return await asyncio.wait_for(self._process.wait(), PATIENCE)

    def end(self) -> None:
        """Kill it, if it still runs: something went wrong."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def signal(self, number: signal.Signals) -> None:
        if self.code is None:
            os.kill(self.pid, number)

    def children(self) -> list[psutil.Process]:
        """The zygote and the children that run jobs, in the order of their birth."""
        try:
            return sorted(psutil.Process(self.pid).children(), key=lambda process: process.create_time())
        except psutil.NoSuchProcess:
            return []

    def look(self) -> tuple[int, float]:
        """Its memory in bytes, and when that was; its children's marks are remembered on the way."""
        for child in self.children():
            try:
                mark, _ = resource.prlimit(child.pid, resource.RLIMIT_RTTIME)
            except ProcessLookupError:
                continue
            if mark != resource.RLIM_INFINITY:
                self.marks.add(mark)
        return psutil.Process(self.pid).memory_info().rss, time.monotonic()

    def descriptors(self) -> int:
        """Return how many descriptors it holds, without connections to the server, which come and go.

        Its metrics count them: only root may look into /proc/PID/fd of a process that is not dumpable.
        """
        metrics = call(self._socket, "GET", "/metrics").decode()
        held = int(float(_OPEN.findall(metrics)[0]))
        return held - len(self._connections())

    def _connections(self) -> list[object]:
        """Its connections to the server: all but the connections of this process."""
        port = urlsplit(self._url).port
        found = psutil.net_connections("tcp")
        return [each for each in found if each.raddr and each.raddr.port == port and _is_of_another_process(each)]

    @property
    def _socket(self) -> Path:
        return self._folder / "control.sock"


def _is_of_another_process(connection: Any) -> bool:
    """True unless this process holds it, or no process does any more."""
    return connection.pid != os.getpid() and bool(connection.status != psutil.CONN_TIME_WAIT)


async def _spawn(command: str, options: dict[str, Any], *, stdout: Any, stderr: Any) -> Process:
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MOBIUS_")}
    environment = {**kept, "MOBIUS_API_KEY": "mbx_soak"}
    return await asyncio.create_subprocess_exec(
        *_PROGRAM, command, *arguments, stdin=DEVNULL, stdout=stdout, stderr=stderr, env=environment
    )
