"""Celery's prefork pool on Redis, which remembers what it has accepted in a file."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparison.mobius import free_port
from benchmarks.comparison.session import HEAVY_MODULE, Session


def why_not() -> str | None:
    """What is missing here for Celery to be compared; None when nothing is."""
    if importlib.util.find_spec("celery") is None or importlib.util.find_spec("redis") is None:
        return "Celery is not compared: pip install 'celery[redis]'"
    if shutil.which("redis-server") is None:
        return "Celery is not compared: apt-get install redis-server"
    return None


class CeleryPool(Session):
    """Late acknowledgement, all else as it is by default."""

    signal = "SIGTERM"

    def __init__(self, folder: Path) -> None:
        from celery import Celery

        super().__init__(folder)
        self._port = free_port()
        url = f"redis://127.0.0.1:{self._port}/0"
        self._client = Celery(broker=url, backend=url)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def queue_command(self) -> Sequence[str]:
        storage = ["--save", "", "--appendonly", "yes", "--dir", str(self.folder)]
        return ["redis-server", "--bind", "127.0.0.1", "--port", str(self._port), *storage]

    def is_queue_up(self) -> bool:
        import redis

        try:
            with redis.Redis(port=self._port) as client:
                client.ping()
        except redis.RedisError:
            return False
        return True

    def worker_command(self, workers: int, *, heavy: bool, memory: int | None) -> Sequence[str]:
        celery = ["-m", "celery", "--app", "benchmarks.comparison.tasks", "--broker", self.url]
        worker = ["--result-backend", self.url, "worker", "--pool", "prefork", "--concurrency", str(workers)]
        limits = [] if memory is None else ["--max-memory-per-child", str(memory * 1024)]
        return [*celery, *worker, *limits, *(["--include", HEAVY_MODULE] if heavy else [])]

    def results(self) -> int:
        """How many there are, and a few keys more."""
        import redis

        with redis.Redis(port=self._port) as client:
            return int(client.dbsize())

    def submit(self, job: str, **parameters: object) -> str:
        ticket: str = self._client.send_task(job, kwargs=parameters).id
        return ticket

    def cancel(self, ticket: str) -> None:
        self._client.control.revoke(ticket, terminate=True, signal=self.signal)

    def outcome(self, ticket: str) -> str:
        result = self._client.AsyncResult(ticket)
        match result.state:
            case "SUCCESS":
                return "completed"
            case "FAILURE" | "REVOKED":
                return type(result.result).__name__
        return ""


class KillingCeleryPool(CeleryPool):
    """The same; what is revoked is not asked."""

    variant = ', `signal="SIGKILL"`'
    signal = "SIGKILL"


class FreezingCeleryPool(CeleryPool):
    """The same; its children share what was imported."""

    variant = ", `gc.freeze()` before the forks"

    def worker_command(self, workers: int, *, heavy: bool, memory: int | None) -> Sequence[str]:
        command = super().worker_command(workers, heavy=heavy, memory=memory)
        return [*command, "--include", "benchmarks.comparison.frozen"]
