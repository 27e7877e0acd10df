"""This supervisor and the published SDK's pool, both on the development server."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.comparison.session import HEAVY_MODULE, LEASE_TTL, Session

HANDLERS = Path(__file__).with_name("handlers")
HEAVY = HANDLERS.parents[1] / "heavy_handlers"
HEARTBEAT = 1
"""Seconds between heartbeats, and so the longest that an order to cancel takes to be heard."""
_RETRY = [{"error_equals": ["claim_timeout", "liveness_timeout", "WorkerShutdown"], "base_delay": "100ms"}]


class Mobius(Session):
    """What the two have in common: the server."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def use(self, url: str) -> None:
        """Have the worker, not started yet, speak to another server."""
        self._port = urlsplit(url).port or self._port

    def queue_command(self) -> Sequence[str]:
        options = {"port": self._port, "db": self.folder / "db", "heartbeat-interval": HEARTBEAT}
        return ["-m", "supervisor", "server", *_flags({**options, "lease-ttl": LEASE_TTL})]

    def is_queue_up(self) -> bool:
        try:
            self._call("GET", "")
        except OSError:
            return False
        return True

    def submit(self, job: str, **parameters: object) -> str:
        step = {"name": "only", "action": job, "parameters": parameters, "retry": _RETRY}
        ticket: str = self._call("POST", "", {"mode": "inline", "spec": {"name": job, "steps": [step]}})["id"]
        return ticket

    def cancel(self, ticket: str) -> None:
        self._call("POST", f"/{ticket}/cancellations", {})

    def outcome(self, ticket: str) -> str:
        run = self._call("GET", f"/{ticket}")
        match run["status"]:
            case "completed":
                return "completed"
            case "failed":
                return str(self._call("GET", f"/{ticket}/jobs")["items"][-1].get("error_type"))
        return ""

    def _call(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/v1/projects/bench/runs{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": "Bearer mbx_bench", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.loads(response.read() or b"null")


class Ours(Mobius):
    """This supervisor, which is told how long the server's leases are: all else as it is by default."""

    def worker_command(self, workers: int, *, heavy: bool, memory: int | None) -> Sequence[str]:
        handlers = ":".join(map(str, (HANDLERS, HEAVY) if heavy else (HANDLERS,)))
        options = {"base-url": self.url, "project": "bench", "handlers": handlers, "workers": workers}
        options |= {"state-dir": self.folder, "worker-id": "compared", "lease-ttl": f"{LEASE_TTL}s"}
        if memory is not None:
            options["job-memory"] = f"{memory}MiB"
        return ["-m", "supervisor", "run", *_flags(options)]


class Sdk(Mobius):
    """Threads of one process."""

    def worker_command(self, workers: int, *, heavy: bool, memory: int | None) -> Sequence[str]:  # noqa: ARG002 - knows no limit
        return ["-m", "benchmarks.comparison.sdk", self.url, str(workers), *([HEAVY_MODULE] if heavy else [])]


def free_port() -> int:
    """One that nobody listens at, so that what is started anew is found where it was."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port: int = tried.getsockname()[1]
        return port


def _flags(options: dict[str, Any]) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]
