"""The local development server: the job server's HTTP protocol over a store, for handler authors and for tests.

    async with DevServer(DevServerSettings()) as server:
        run_id = await server.start_run("demo", {"name": "w", "steps": [{"name": "s", "action": "a"}]})
        await server.until(lambda: server.run(run_id).status == "completed")

It runs in the caller's event loop.  Not for production: one process, one thread, no quotas.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
from aiohttp import web

from supervisor.devserver.answers import answer_errors, demand_key, demand_project
from supervisor.devserver.call_log import Call, CallLog, HangUp, Intercept, LoseAnswer
from supervisor.devserver.dispatch import ChangeSignal, Dispatch
from supervisor.devserver.fault_injector import FaultInjector
from supervisor.devserver.faults import FaultScript
from supervisor.devserver.records import Job, Run
from supervisor.devserver.requests import RunRequest
from supervisor.devserver.run_views import RunViews
from supervisor.devserver.sse import EventStreams
from supervisor.devserver.store import Store, random_id
from supervisor.devserver.worker_views import WorkerViews
from supervisor.text.printable import authority

__all__ = ["Call", "DevServer", "DevServerSettings", "HangUp", "LoseAnswer"]

Value = TypeVar("Value")

_SHUTDOWN_TIMEOUT = 2.0
_SHOWN_RUNS = 20


class DevServer:
    """A server on one address; open it with `async with`."""

    def __init__(self, settings: DevServerSettings) -> None:
        self.settings = settings
        self.store = Store(
            settings.database,
            lease_ttl=settings.lease_length,
            immediate_cancellation=settings.immediate_cancellation,
            new_id=settings.new_id,
        )
        self._projects = set(settings.projects or ()) | self.store.projects()
        self._changes = ChangeSignal()
        self._journal = CallLog(self._changes, size=settings.journal_size)
        self._dispatch = Dispatch(self.store, self._changes)
        self._fault_injector = FaultInjector(settings.faults, self.store, self._dispatch)
        self._streams = EventStreams(self.store, self._changes, keepalive=settings.keepalive)
        self._runner = web.AppRunner(
            self._application(), handler_cancellation=True, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT
        )
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        latest = ", ".join(map(str, self.store.latest(_SHOWN_RUNS)))
        return f"<DevServer {self.settings.host} {latest or 'without runs'}>"

    async def __aenter__(self) -> Self:
        """Bind and listen; raise `OSError` when the address is in use."""
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Do not pass on the error of the block, because the task group inside would wrap it.
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """Base URL without a path, while the server is open."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{authority(host, port)}"

    @property
    def projects(self) -> frozenset[str]:
        """Known projects."""
        return frozenset(self._projects)

    @property
    def calls(self) -> list[Call]:
        """Recorded calls in order of arrival; empty unless `settings.journal` is set."""
        return self._journal.calls

    @property
    def intercept(self) -> Intercept | None:
        """Hook before every call: returns an answer, or None to continue, or raises `HangUp` or `LoseAnswer`."""
        return self._journal.intercept

    @intercept.setter
    def intercept(self, intercept: Intercept | None) -> None:
        self._journal.intercept = intercept

    @property
    def faults_injected(self) -> Mapping[str, int]:
        """Number of injected faults of `settings.faults` by kind."""
        return self._fault_injector.injected

    def job(self, job_id: str) -> Job:
        """Raises `Unknown`."""
        return self.store.job(None, job_id)

    def run(self, run_id: str) -> Run:
        """Raises `Unknown`."""
        return self.store.run(None, run_id)

    def jobs(self, run_id: str) -> list[Job]:
        """Return a run's jobs, oldest first."""
        return self.store.jobs(run_id)

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """Return the events of handlers in a run: `{"type", "job_id", "data", ...}`, oldest first."""
        return [msgspec.json.decode(event.data) for event in self.store.events(run_id) if event.type == "custom"]

    async def start_run(
        self,
        project: str,
        spec: Mapping[str, Any],
        *,
        inputs: Mapping[str, Any] | None = None,
        queue: str | None = None,
    ) -> str:
        """Start a run of `spec` and return its id; raise `Invalid` or msgspec's `ValidationError`."""
        request = msgspec.convert({"spec": spec, "inputs": inputs or {}, "queue": queue}, RunRequest)
        self._projects.add(project)
        run = self.store.start_run(project, request, time.time())
        self._dispatch.follow_up()
        return run.id

    async def cancel_run(self, run_id: str) -> None:
        """Cancel a run, like the endpoint of that name; raise `Unknown`."""
        self.store.cancel(self.run(run_id).project, run_id, time.time())
        self._dispatch.follow_up()

    async def until(self, predicate: Callable[[], Value | None], timeout: float = 10.0) -> Value:
        """Wait until `predicate` returns a value other than None and False; it is called after every change.

        Raises `TimeoutError` with the server's state after `timeout` seconds, and any exception of `predicate`.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._first(predicate)
        except TimeoutError:
            raise TimeoutError(f"still not so after {timeout:g} s: {self!r}") from None

    async def _first(self, predicate: Callable[[], Value | None]) -> Value:
        while True:
            changed = self._changes.upcoming
            value = predicate()
            if value is not None and value is not False:
                return value
            await changed.wait()

    async def _open(self) -> None:
        self._stack.callback(self.store.close)
        await self._stack.enter_async_context(self._keeping_time())
        await self._runner.setup()
        self._stack.push_async_callback(self._runner.cleanup)
        await web.TCPSite(self._runner, self.settings.host, self.settings.port).start()

    def _application(self) -> web.Application:
        middlewares = [
            answer_errors,
            self._journal.observe,
            answer_errors,  # again inside, so that the call log records an error as an answer
            demand_key(_as_bytes(self.settings.api_key)),
            demand_project(self._admits),
            self._fault_injector.interfere,
            answer_errors,  # and for faults, which may change error answers, too
        ]
        application = web.Application(middlewares=middlewares, client_max_size=self.settings.max_body)
        interval = float(self.settings.heartbeat_interval)
        workers = WorkerViews(self.store, self._dispatch, self._fault_injector, heartbeat_interval=interval)
        # Streams first: otherwise `runs/events` would match as a run.
        application.add_routes(
            [*self._streams.routes(), *workers.routes(), *RunViews(self.store, self._dispatch).routes()]
        )
        application.on_shutdown.append(self._send_home)
        return application

    def _admits(self, project: str) -> bool:
        """Is this a project?  Unless the set is fixed, asking for one creates it."""
        if self.settings.projects is None:
            self._projects.add(project)
        return project in self._projects

    async def _send_home(self, _application: web.Application) -> None:
        self._fault_injector.close()
        self._dispatch.close()
        self._streams.close()

    @asynccontextmanager
    async def _keeping_time(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            clock = group.create_task(self._dispatch.keep_time())
            try:
                yield
            finally:
                clock.cancel()


def _as_bytes(key: bytes | str | None) -> bytes | None:
    return key.encode() if isinstance(key, str) else key


@dataclass(frozen=True, slots=True)
class DevServerSettings:
    """Settings of a `DevServer`.  Durations are in seconds, sizes in bytes.

    `database` None is an in-memory database; `api_key` None accepts any key; `projects` None creates each requested
    project.  `journal` is the number of calls in `DevServer.calls`, True for ten thousand.  `faults` is a script of
    faults to inject (see `faults.parse_faults`).
    """

    host: str = "127.0.0.1"
    port: int = 0
    database: Path | str | None = None
    api_key: bytes | str | None = None
    projects: frozenset[str] | None = None
    heartbeat_interval: float = 10.0
    lease_ttl: float | None = None
    immediate_cancellation: bool = False
    keepalive: float = 15.0
    max_body: int = 64 * 1024 * 1024
    journal: bool | int = False
    faults: FaultScript | None = None
    new_id: Callable[[str], str] = random_id

    @property
    def lease_length(self) -> float:
        return 3 * self.heartbeat_interval if self.lease_ttl is None else self.lease_ttl

    @property
    def journal_size(self) -> int:
        return 10_000 * self.journal if isinstance(self.journal, bool) else self.journal
