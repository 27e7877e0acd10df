"""The programs that are measured and the server they talk to, each a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.processes import PATIENCE

HANDLERS = Path(__file__).with_name("handlers")


@dataclass(frozen=True, slots=True)
class Program:
    """One that runs."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid


class JobServer:
    """The benchmark's side of the server."""

    def __init__(self, url: str, program: Program) -> None:
        self.url = url
        self.program = program

    def offer(self, count: int, action: str = "trivial", **more: Any) -> None:
        """Have so many jobs claimed; see `server.Claims.offer` for what else can be said."""
        self._post("offer", {"count": count, "action": action, **more})

    def set(self, **settings: Any) -> None:
        """Change the delay of a round trip, or what heartbeats are answered."""
        self._post("settings", settings)

    def tally(self, completes: int = 0) -> dict[str, Any]:
        """What was asked so far; waits until so many jobs are completed."""
        return json.loads(self._call("GET", f"tally?completes={completes}"))  # type: ignore[no-any-return]  # our own

    def until(self, is_so: Callable[[dict[str, Any]], object], every: float = 0.02) -> dict[str, Any]:
        """The first tally for which something holds."""
        give_up_at = time.monotonic() + PATIENCE
        while not is_so(tally := self.tally()):
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"not within {PATIENCE:g} s")
            time.sleep(every)
        return tally

    def _post(self, what: str, body: Mapping[str, Any]) -> None:
        self._call("POST", what, json.dumps(body))

    def _call(self, method: str, what: str, body: str | None = None) -> bytes:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE)
        try:
            connection.request(method, f"/bench/{what}", body)
            return connection.getresponse().read()
        finally:
            connection.close()


@contextmanager
def job_server() -> Iterator[JobServer]:
    with program([sys.executable, "-m", "benchmarks.server"], stdout=subprocess.PIPE) as running:
        assert running.process.stdout is not None
        yield JobServer(running.process.stdout.readline().decode().strip(), running)


@contextmanager
def supervisor(
    url: str,
    *,
    workers: int,
    handlers: Sequence[Path] = (HANDLERS,),
    command: Sequence[str] = (sys.executable, "-m", "supervisor"),
    **options: str,
) -> Iterator[Program]:
    """The whole program; in the end its jobs are stopped, not waited for."""
    with tempfile.TemporaryDirectory(prefix="bench-") as state:
        given = {"base_url": url, "project": "bench", "workers": workers, "state_dir": state}
        given |= {"handlers": ":".join(map(str, handlers)), "log_level": "warning", **options}
        arguments = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        with program([*command, "run", *arguments], end_with=signal.SIGQUIT) as running:
            yield running


@contextmanager
def module(name: str, *arguments: str) -> Iterator[Program]:
    """A module of the benchmarks as a program; in the end it is killed, for some wait out their last poll."""
    with program([sys.executable, "-m", f"benchmarks.{name}", *arguments], end_with=signal.SIGKILL) as running:
        yield running


@contextmanager
def program(
    command: Sequence[str], *, stdout: int | None = None, end_with: signal.Signals = signal.SIGTERM
) -> Iterator[Program]:
    """Run a command inside the block; it is told to end in the end."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MOBIUS_")}
    with tempfile.NamedTemporaryFile(prefix="bench-", suffix=".log") as log:
        process = subprocess.Popen(
            command,
            env={**kept, "MOBIUS_API_KEY": "mbx_bench"},
            stdin=subprocess.DEVNULL,
            stdout=log if stdout is None else stdout,
            stderr=log,
            start_new_session=True,  # as a service manager does it: the scheduler shares cores out by session
        )
        try:
            yield Program(process, Path(log.name))
        except BaseException:
            print(Path(log.name).read_text(), file=sys.stderr)
            raise
        finally:
            process.send_signal(end_with)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
