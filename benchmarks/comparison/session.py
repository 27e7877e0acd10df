"""A queue and a worker that serves it, each a program that can be killed and started again: what is compared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from benchmarks.processes import PATIENCE

LEASE_TTL = 20
"""Seconds after which the queue gives away a job whose worker is silent."""
HEAVY_MODULE = "benchmarks.heavy_handlers._table"
_LOOK_EVERY = 0.01


class Session(ABC):
    """One contender at work, in a folder of its own; in the end nothing of it is left."""

    variant = ""
    """What is not as everywhere else, as a part of a question."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.worker: subprocess.Popen[bytes]
        self._log: IO[bytes] = self.log.open("ab")
        self._queue: subprocess.Popen[bytes]
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self.start_queue()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.log.read_text()[-4000:], file=sys.stderr)
        self._end()

    def _end(self) -> None:
        for process in self._started:
            _end_session_of(process)
        self._log.close()

    def start_queue(self) -> None:
        self._queue = self._spawn(self.queue_command())
        if not until(self.is_queue_up):
            raise TimeoutError(f"the queue does not start: {self.log.read_text()[-1000:]}")

    def stop_queue(self) -> None:
        """As when its host is started anew: what it has accepted, it remembers."""
        self._queue.terminate()
        self._queue.wait(PATIENCE)

    def start_worker(self, workers: int, *, heavy: bool = False, memory: int | None = None) -> None:
        """Start it; `heavy` has 100 MiB of modules imported, `memory` is the limit of a job in MiB, if it knows one."""
        self.worker = self._spawn(self.worker_command(workers, heavy=heavy, memory=memory))

    def kill_worker(self) -> None:
        """SIGKILL, as the out-of-memory killer does it: its main process alone."""
        self.worker.kill()
        self.worker.wait()

    def run(self, job: str, **parameters: object) -> str:
        """Have a job done; how it ended."""
        ticket = self.submit(job, **parameters)
        until(lambda: self.outcome(ticket))
        return self.outcome(ticket)

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MOBIUS_", "CELERY_"))}
        process = subprocess.Popen(
            [sys.executable, *command] if command[0] == "-m" else command,
            env={**kept, "MOBIUS_API_KEY": "mbx_bench"},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # as a service manager does it, and so that all of it can be found in the end
        )
        self._started.append(process)
        return process

    @abstractmethod
    def queue_command(self) -> Sequence[str]: ...

    @abstractmethod
    def worker_command(self, workers: int, *, heavy: bool, memory: int | None) -> Sequence[str]: ...

    @abstractmethod
    def is_queue_up(self) -> bool: ...

    @abstractmethod
    def submit(self, job: str, **parameters: object) -> str:
        """Queue a job, which is tried again if its worker is lost; its ticket."""

    @abstractmethod
    def cancel(self, ticket: str) -> None:
        """Order a running job to stop, as its user would."""

    @abstractmethod
    def outcome(self, ticket: str) -> str:
        """`completed`, or how it failed; empty as long as it is open."""


def until(is_so: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Wait until something holds; whether it did so in time."""
    give_up_at = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(_LOOK_EVERY)
    return True


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end_session_of(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pid in psutil.pids():
        with suppress(ProcessLookupError):
            if os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)
