"""One run of the program: opens its parts in order, serves, ends in order.

Runs in the parent.  It knows nothing of single jobs.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvloop

from supervisor.attempt.outcome import SHUTDOWN
from supervisor.concurrency.helpers import HelperTasks, prestarted_executor
from supervisor.concurrency.suspend import on_resume
from supervisor.exit_code import ExitCode
from supervisor.job_server import AuthRevoked, ClaimRefused, JobServer
from supervisor.linux import descriptor_limit
from supervisor.logs.redaction import Mask
from supervisor.pool import memory_guard as memory
from supervisor.pool.authorization import Authorization, AuthorizedServer
from supervisor.pool.claim_gate import BlockReason
from supervisor.pool.memory_guard import MemoryGuard
from supervisor.pool.pool import Pool
from supervisor.process.cgroup_delegation import Delegation
from supervisor.process.orphan_watch import OrphanWatch
from supervisor.process.reaper import Reaper
from supervisor.process.zygote import StartFailed
from supervisor.reporting.replay import Replay
from supervisor.reporting.report import Reporter
from supervisor.reporting.spool import Spool
from supervisor.reporting.spool_format import Destination
from supervisor.service import trust
from supervisor.service.derived_config import job_config
from supervisor.service.handler_loader import HandlerLoader
from supervisor.service.handler_watch import HandlerWatch
from supervisor.service.instance_lock import hold_instance
from supervisor.service.operator import Operator
from supervisor.service.operator_signals import operator_signals
from supervisor.service.reload import Components, Reloader, ReloadSources
from supervisor.service.shutdown import Shutdown, Stage
from supervisor.service.systemd_notify import Notifier
from supervisor.service.systemd_status import SystemdReporter, extend_start_timeout
from supervisor.settings.credential import CredentialSource
from supervisor.settings.resolution import ConfigError
from supervisor.settings.settings import Settings
from supervisor.settings.working_directory import working_directory
from supervisor.stats import Stats

if TYPE_CHECKING:
    from supervisor.dialects.http.client import Client  # at run time it is imported in `_import_the_rest`

log = structlog.get_logger("service")

MAX_THREADS = 8
"""Threads for work that may take seconds: the disk, and measuring jobs."""
MEMORY_CHECK_INTERVAL = 1.0
"""Seconds between two checks of the free memory."""
FINAL_REPORT_TIMEOUT = 3.0
"""Seconds beyond the grace for the reports of stopped jobs; then the program ends, with or without answers."""
SPOOLED_OUTCOME_TIMEOUT = 5.0
"""Seconds that the program waits, at its end, for a server that accepts no outcomes, if all of them are on disk."""
LAST_EVENTS = 5.0
"""Seconds, at the end, within which the server must accept some events of a job; otherwise they are dropped."""
SPOOLED_CHECK_INTERVAL = 0.25
"""Seconds between two checks of the outcomes that are left."""
KEY_REREAD_TIMEOUT = 1.0
"""Seconds for which an empty or missing key file is read again."""
GC_THRESHOLD_OBJECTS = 5_000
"""New objects after which the garbage collector looks for cycles; Python's default is 700."""
CLOSE_TIMEOUT = 5.0
"""Seconds for closing all parts."""


def main(
    settings: Settings,
    source: CredentialSource,
    mask: Mask,
    reread: Callable[[], Settings],
    settings_file: Path | None,
) -> ExitCode:
    """Serve until a signal or an operator ends the program; return the exit code.  An error is one line in the log.

    `mask` learns each key that is read; `reread` returns the settings as they are at a reload, or raises `ConfigError`.
    """
    with loop_runner() as runner:
        return runner.run(serve(settings, source, os.environ, mask, reread, settings_file, is_alone=True))


@contextmanager
def loop_runner() -> Iterator[asyncio.Runner]:
    """Yield the runner of the event loop."""
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        yield runner
    finally:
        # `close` joins the loop's threads in one more thread, whose start may fail; Python joins them at its end, too.
        with suppress(RuntimeError):
            runner.close()


async def serve(
    settings: Settings,
    source: CredentialSource,
    environment: Mapping[str, str],
    mask: Mask | None = None,
    reread: Callable[[], Settings] | None = None,
    settings_file: Path | None = None,
    *,
    is_alone: bool = False,
) -> ExitCode:
    """As `main`, in the running loop; `is_alone` if the process does nothing else: its collector may be tuned."""
    asyncio.get_running_loop().set_default_executor(prestarted_executor(MAX_THREADS))
    try:
        with (
            descriptor_limit.raised() as open_files,
            hold_instance(settings.state_dir, settings.worker_id) as scratch,
        ):
            _require_descriptors(settings.workers)
            if is_alone:
                trust.warn(settings, source, settings_file)
            sources = ReloadSources(
                reread or (lambda: settings),
                source,
                environment,
                scratch,
                mask or Mask(),
                trust.confinement_of(settings, source, settings_file),
                open_files,
                working_directory(environment),
            )
            return await Service(settings, sources, _spare_the_collector if is_alone else _leave_it).run()
    except* StartFailed as failed:
        log.error("cannot start", error=_first(failed))
        code = ExitCode.NO_HANDLER
    except* AuthRevoked as revoked:
        log.error("the server refuses the credential", error=_first(revoked), key_from=source.place)
        code = ExitCode.CREDENTIAL_REFUSED
    except* (ClaimRefused, ConfigError) as refused:
        log.error("cannot serve", error=_first(refused), base_url=settings.base_url, project=settings.project)
        code = ExitCode.USAGE
    except* Exception:  # the last resort of the whole program: a traceback in the log, and an exit code
        log.exception("internal error")
        code = ExitCode.INTERNAL_ERROR
    return code


class Service:
    """Owns all parts of the program while it serves."""

    def __init__(self, settings: Settings, sources: ReloadSources, imported: Callable[[], None]) -> None:
        """`imported` is called after the last import."""
        self._settings = settings
        self._imported = imported
        self._sources = sources
        self._token = sources.read_key()
        self._stats = Stats()
        self._delegation = Delegation.found()
        self._reaper = Reaper(self._delegation)
        self._notifier = Notifier(sources.environment)
        self._shutdown = Shutdown()
        self._handler_loader = HandlerLoader(sources.zygote_config(settings), self._reaper)
        self._operator: Operator | None = None
        self._key_error: str | None = None
        self._has_killed = False  # jobs that did not end in time, or outcomes that are not on disk

    async def run(self) -> ExitCode:
        """Serve until the shutdown is done; return the exit code."""
        self._sources.warn_of_misspelt(self._settings)
        with self._shutdown.signals(), operator_signals(lambda: self._operator, self._shutdown.hang_up):
            if self._delegation is not None:
                await self._delegation.sweep()
            try:
                code = await self._run_loaded() if await self._load() else self._code_of_an_end()
            finally:
                await self._handler_loader.close()
                await self._reaper.kill_orphans()
        log.info("stopped", code=int(code))
        return code

    async def _load(self) -> bool:
        """Load the handlers; return False if a shutdown begins before they are loaded."""
        self._notifier.status("importing the handlers")
        async with HelperTasks() as beside:
            loading = beside.create_task(self._handler_loader.load(), name="loading")
            beside.start(lambda: self._give_up_when_told(loading))
            beside.start(lambda: extend_start_timeout(self._notifier))
            await asyncio.sleep(0)  # the zygote is started
            _import_the_rest()
            self._imported()
            await asyncio.wait([loading])
        return not loading.cancelled()

    async def _give_up_when_told(self, loading: asyncio.Task[None]) -> None:
        await self._shutdown.reached(Stage.DRAIN)
        self._notifier.stopping()
        log.info("told to end while the handlers are loaded")
        loading.cancel()

    def _code_of_an_end(self) -> ExitCode:
        """Return the exit code of a run in which no job was cut."""
        return ExitCode.THIRD_INTERRUPT if self._shutdown.stage is Stage.KILL else ExitCode.DRAINED

    async def _run_loaded(self) -> ExitCode:
        from supervisor.dialects.http.client import Account, Client  # see `_import_the_rest`

        settings = self._settings
        proxy = self._sources.proxy_to(settings)
        if proxy is not None:
            log.info("calls go through a proxy", proxy=proxy.name)
        worker = settings.worker_id
        account = Account(settings.base_url, settings.project, worker, settings.queues, worker, proxy)
        async with Client(account, self._token, self._reread) as client:
            authorization = Authorization(settings.auth_timeout)
            server = AuthorizedServer(client, authorization)
            reporter = self._reporter(server)
            replay = Replay(reporter)
            plant = self._components(client, authorization, reporter, replay)
            log.info(
                "started",
                workers=settings.workers,
                worker_id=settings.worker_id,
                actions=[handler.action for handler in self._handler_loader.zygote.imported.handlers],
            )
            try:
                reloader = Reloader(plant, settings, self._sources)
                operator = self._operator = Operator(plant, reloader, self._sources.mask)
                with on_resume(plant.pool.recheck_leases):
                    async with self._controlled(operator):
                        return await self._serve(plant, operator, reloader, replay)
            finally:
                self._operator = None
                await replay.log_waiting()

    def _components(
        self, client: Client, authorization: Authorization, reporter: Reporter, replay: Replay
    ) -> Components:
        pool = Pool(
            self._settings.workers,
            rules=job_config(self._settings, self._sources.scratch, self._sources.mask),
            server=reporter.server,
            reporter=reporter,
            stats=self._stats,
            reaper=self._reaper,
            zygote=self._handler_loader.zygote,
        )
        authorization.blocker = pool
        herald = SystemdReporter(self._notifier, pool, self._handler_loader, replay, self._shutdown, self._sources.mask)
        watch = HandlerWatch(self._settings.handlers)
        return Components(
            self._handler_loader, pool, client, authorization, reporter, self._shutdown, self._notifier, herald, watch
        )

    @asynccontextmanager
    async def _controlled(self, operator: Operator) -> AsyncIterator[None]:
        """Serve the endpoints of operators inside the block."""
        from supervisor.control.endpoints import serve_control  # see `_import_the_rest`

        environment, is_of_a_job = self._sources.environment, self._reaper.belongs_to_job
        async with serve_control(self._settings, environment, operator, self._stats, is_of_a_job):
            yield

    def _reporter(self, server: JobServer) -> Reporter:
        settings = self._settings
        destination = Destination(settings.base_url, settings.project)
        return Reporter(server, Spool(settings.state_dir), destination, settings.spool_after, self._stats)

    async def _reread(self) -> str | None:
        """Return the current key, after the server refused it; None if it cannot be read.

        Not at the first look: whoever replaces it may be in the middle of that.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + KEY_REREAD_TIMEOUT
        while True:
            try:
                return await self._sources.reread_key()
            except ConfigError as error:
                if loop.time() >= give_up_at:
                    self._log_key_error(str(error))
                    return None
            await asyncio.sleep(KEY_REREAD_TIMEOUT / 10)

    def _log_key_error(self, error: str) -> None:
        """Log once why the key cannot be read: while the server refuses it, each call reads it again."""
        if error != self._key_error:
            log.error("the API key cannot be read again", error=error)
        self._key_error = error

    async def _serve(self, plant: Components, operator: Operator, reloader: Reloader, replay: Replay) -> ExitCode:
        pool, herald = plant.pool, plant.systemd_reporter
        async with HelperTasks() as beside:
            serving = beside.create_task(pool.run(), name="pool")
            beside.start(lambda: self._shut_down_when_told(pool, reloader, serving))
            beside.start(lambda: self._leave_what_is_on_disk(pool, serving))
            beside.start(lambda: self._handler_loader.keep_alive(pool.use))
            beside.start(lambda: _watch_memory(pool, reloader))
            beside.start(OrphanWatch(self._reaper).run)
            beside.start(operator.run)
            beside.start(reloader.run)
            beside.start(replay.run)
            beside.start(herald.run)
            beside.start(herald.run_watchdog)
            if self._settings.watch:
                beside.start(lambda: plant.watch.run(reloader.request))
            await asyncio.wait([serving])
        was_cut = self._shutdown.stage is not Stage.KILL and (pool.jobs_interrupted or self._has_killed)
        return ExitCode.JOBS_CUT if was_cut else self._code_of_an_end()

    async def _shut_down_when_told(self, pool: Pool, reloader: Reloader, serving: asyncio.Task[None]) -> None:
        await self._shutdown.reached(Stage.DRAIN)
        self._notifier.stopping()
        timeout = reloader.settings.drain_timeout
        # TimeoutStopSec of the unit fits the default drain timeout; a longer one is announced here.
        self._notifier.extend_timeout(timeout + pool.longest_grace + FINAL_REPORT_TIMEOUT + CLOSE_TIMEOUT)
        if self._shutdown.stage is Stage.DRAIN:
            log.info("draining", jobs=pool.busy, timeout=timeout)
            pool.drain()
        await self._shutdown.reached(Stage.STOP, timeout=timeout)
        if running := pool.running:
            log.warning("stopping the jobs that still run", jobs=running)
        pool.stop(SHUTDOWN)
        await self._shutdown.reached(Stage.KILL, timeout=pool.longest_grace + FINAL_REPORT_TIMEOUT)
        running = pool.running
        events = pool.undelivered_events
        log.warning("ending at once", running=running, reporting=pool.busy - running, events_dropped=events)
        self._end(pool, serving)

    async def _leave_what_is_on_disk(self, pool: Pool, serving: asyncio.Task[None]) -> None:
        """End a drain early if only spooled outcomes are left, which the next program can send as well."""
        await self._shutdown.reached(Stage.DRAIN)
        loop = asyncio.get_running_loop()
        since: float | None = None
        while since is None or loop.time() < since + SPOOLED_OUTCOME_TIMEOUT:
            await asyncio.sleep(SPOOLED_CHECK_INTERVAL)
            pool.hurry(LAST_EVENTS)
            since = (since or loop.time()) if pool.only_spooled_outcomes else None
        log.info("no job runs, and the outcomes that the server does not take are on disk", outcomes=pool.busy)
        self._end(pool, serving)

    def _end(self, pool: Pool, serving: asyncio.Task[None]) -> None:
        """End the pool at once."""
        self._has_killed = pool.has_unsaved_outcomes
        serving.cancel()


def _import_the_rest() -> None:
    """Import the client and the operators' side while the zygote, a process of its own, imports the handlers.

    The two take half of the time from the start to the first claim.
    """
    import supervisor.control.endpoints
    import supervisor.dialects.http.client  # noqa: F401 - imported for the functions that import them later


def _require_descriptors(workers: int) -> None:
    if sentence := descriptor_limit.shortage(workers):
        raise ConfigError(sentence)


def _spare_the_collector() -> None:
    """Exempt imported objects from garbage collection: a scan takes milliseconds, in which no heartbeat is sent."""
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD_OBJECTS, 10, 10)  # with trivial jobs 2 % less CPU time


def _leave_it() -> None:
    """Leave the garbage collector to the embedding program."""


async def _watch_memory(pool: Pool, reloader: Reloader) -> None:
    """Block claims while the machine is short of memory."""
    admission = MemoryGuard()
    while True:
        reason = admission.judge(memory.read_headroom(), reloader.settings.min_free_memory)
        was_short = pool.gate.is_blocked_by(BlockReason.MEMORY)
        if reason is not None:
            pool.block(BlockReason.MEMORY, reason)
            if not was_short:
                log.warning("nothing is claimed", reason=reason)
        elif was_short:
            pool.unblock(BlockReason.MEMORY)
            log.info("there is memory again: claiming goes on")
        await asyncio.sleep(MEMORY_CHECK_INTERVAL)


def _first(group: BaseException) -> str:
    """Return the sentence of the first error in a group."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return str(group)
