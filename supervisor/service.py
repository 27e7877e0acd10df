"""One run of the program: open everything in order, serve, say so, end in order.

Runs in the parent.  It owns the settings and which zygote is current; it knows nothing of single jobs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog
import uvloop

from supervisor.api.client import Account, Client
from supervisor.backoff import Backoff
from supervisor.config import ConfigError, Settings
from supervisor.control.opening import controlled
from supervisor.course import Course
from supervisor.credential import CredentialSource
from supervisor.exit_code import ExitCode
from supervisor.helm import Helm
from supervisor.instance import claimed_instance
from supervisor.lag import LoopLag
from supervisor.ledger import Ledger
from supervisor.limits import Limits
from supervisor.outcome import SHUTDOWN
from supervisor.pool import Pool
from supervisor.process.environment import child_environment
from supervisor.process.family import Family
from supervisor.process.messages import Imported
from supervisor.process.zygote import Nursery, StartFailed, Zygote
from supervisor.redaction import Mask
from supervisor.replay import Replay
from supervisor.report import Reporter
from supervisor.server import AuthRevoked, ClaimRefused, JobServer
from supervisor.shutdown import Shutdown, Stage
from supervisor.slot import Rules
from supervisor.spool import Spool
from supervisor.spoolfile import Destination
from supervisor.systemd import Notifier
from supervisor.tasks import Alongside

log = structlog.get_logger("service")

STATUS_INTERVAL = 5.0
"""Seconds between two looks at what `systemctl status` shows."""
LAST_REPORTS = 3.0
"""Seconds beyond the grace that stopped jobs get to be reported; then the program ends whatever the server does."""


def main(settings: Settings, source: CredentialSource, mask: Mask) -> ExitCode:
    """Serve until told to stop; return the exit code.  What goes wrong is one line in the log."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings, source, os.environ, mask))


async def serve(
    settings: Settings, source: CredentialSource, environment: Mapping[str, str], mask: Mask | None = None
) -> ExitCode:
    """As `main`, in the running loop."""
    mask = mask or Mask()
    try:
        with claimed_instance(settings.state_dir, settings.worker_id) as scratch:
            service = Service(settings, source, environment, mask)
            rules = Rules(
                worker_id=settings.worker_id,
                wait=settings.wait_seconds,
                limits=_default_limits(settings),
                lease_ttl=settings.lease_ttl,
                max_heartbeat_interval=settings.max_heartbeat_interval,
                scratch=scratch,
                mask=mask,
                forwards_output=settings.forward_output,
            )
            return await service.run(rules)
    except* StartFailed as failed:
        log.error("cannot start", error=_first(failed))
        code = ExitCode.NO_HANDLER
    except* AuthRevoked as revoked:
        log.error("the server refuses the credential", error=_first(revoked))
        code = ExitCode.CREDENTIAL_REFUSED
    except* (ClaimRefused, ConfigError) as refused:
        log.error("cannot serve", error=_first(refused), base_url=settings.base_url, project=settings.project)
        code = ExitCode.USAGE
    except* Exception:  # the last resort of the whole program: a traceback in the log, and an exit code
        log.exception("internal error")
        code = ExitCode.INTERNAL_ERROR
    return code


class Service:
    """Everything that is open while the program serves."""

    def __init__(
        self, settings: Settings, source: CredentialSource, environment: Mapping[str, str], mask: Mask
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._source = source
        self._mask = mask
        self._token = self._read_key()
        self._ledger = Ledger()
        self._family = Family()
        self._notifier = Notifier(environment)
        self._shutdown = Shutdown()
        self._nursery = Nursery(
            settings.handlers,
            child_environment(environment, settings.pass_env),
            settings.import_timeout,
        )

    async def run(self, rules: Rules) -> ExitCode:
        """Serve until told to stop."""
        settings = self._settings
        account = Account(settings.base_url, settings.project, settings.worker_id, settings.queues, settings.worker_id)
        with self._shutdown.signals():
            zygote = await self._start_zygote()
            async with Client(account, self._token, self._reread) as client:
                reporter = self._reporter(client)
                replay = Replay(reporter)
                pool = Pool(
                    settings.workers,
                    rules=rules,
                    server=client,
                    reporter=reporter,
                    ledger=self._ledger,
                    family=self._family,
                    zygote=zygote,
                )
                log.info(
                    "started",
                    workers=settings.workers,
                    worker_id=settings.worker_id,
                    actions=[handler.action for handler in zygote.imported.handlers],
                )
                try:
                    async with self._controlled(pool, reporter.spool):
                        code = await self._serve(pool, replay)
                finally:
                    await replay.tell_what_waits()
                    await pool.zygote.kill()
                    await self._family.sweep()
        log.info("stopped", code=int(code))
        return code

    @asynccontextmanager
    async def _controlled(self, pool: Pool, spool: Spool) -> AsyncIterator[None]:
        """Let operators look and steer inside the block."""
        lag = LoopLag()
        helm = Helm(self._settings, pool, spool, Course(pool, self._shutdown), lag)
        async with (
            controlled(self._settings, self._environment, helm, self._ledger),
            Alongside() as beside,
        ):
            beside.start(lag.run)
            yield

    def _reporter(self, server: JobServer) -> Reporter:
        settings = self._settings
        destination = Destination(settings.base_url, settings.project)
        return Reporter(server, Spool(settings.state_dir), destination, settings.spool_after, self._ledger)

    def _reread(self) -> str:
        """The key as it is now, after the server has refused it; the one that we have when there is none to read."""
        try:
            return self._read_key()
        except ConfigError as error:
            log.error("the API key cannot be read again", error=str(error))
            return self._token

    def _read_key(self) -> str:
        token = self._source.read().token
        self._mask.add(token)
        return token

    async def _start_zygote(self) -> Zygote:
        zygote = await Zygote.start(self._nursery, self._family)
        _log_problems(zygote.imported)
        if not zygote.imported.handlers:
            await zygote.kill()
            raise StartFailed(f"no handler could be loaded from {', '.join(map(str, self._settings.handlers))}")
        return zygote

    async def _serve(self, pool: Pool, replay: Replay) -> ExitCode:
        async with Alongside() as beside:
            serving = beside.create_task(pool.run(), name="pool")
            beside.start(lambda: self._shut_down_when_told(pool, serving))
            beside.start(lambda: self._keep_zygote(pool))
            beside.start(lambda: self._announce(pool))
            beside.start(replay.run)
            beside.start(self._feed_watchdog)
            await asyncio.wait([serving])
        if self._shutdown.stage is Stage.KILL:
            return ExitCode.THIRD_INTERRUPT
        return ExitCode.JOBS_CUT if pool.jobs_cut or serving.cancelled() else ExitCode.DRAINED

    async def _keep_zygote(self, pool: Pool) -> None:
        """Start a new zygote whenever the current one dies; jobs and their children do not notice."""
        backoff = Backoff(0.1, 30.0)
        while True:
            code = await pool.zygote.exited()
            log.warning("the zygote died, a new one is started", code=code)
            await asyncio.sleep(backoff.next())
            try:
                pool.use(await self._start_zygote())
            except StartFailed as failed:
                log.error("no new zygote", error=str(failed))

    async def _announce(self, pool: Pool) -> None:
        """Tell systemd that we serve, once we do, and how it goes."""
        await pool.first_answer()
        self._notifier.ready()
        log.info("serving")
        while True:
            self._notifier.status(f"{pool.size} children, {pool.busy} busy, {pool.open_polls} open polls")
            await asyncio.sleep(STATUS_INTERVAL)

    async def _feed_watchdog(self) -> None:
        # From the loop that also beats and claims: when it hangs, so does this.
        while self._notifier.watchdog_interval is not None:
            self._notifier.watchdog()
            await asyncio.sleep(self._notifier.watchdog_interval)

    async def _shut_down_when_told(self, pool: Pool, serving: asyncio.Task[None]) -> None:
        await self._shutdown.reached(Stage.DRAIN)
        self._notifier.stopping()
        if self._shutdown.stage is Stage.DRAIN:
            log.info("draining", jobs=pool.busy, timeout=self._settings.drain_timeout)
            pool.drain()
        await self._shutdown.reached(Stage.STOP, timeout=self._settings.drain_timeout)
        if pool.busy:
            log.warning("stopping the jobs that still run", jobs=pool.busy)
        pool.stop(SHUTDOWN)
        await self._shutdown.reached(Stage.KILL, timeout=pool.longest_grace + LAST_REPORTS)
        log.warning("killing what still runs", jobs=pool.busy)
        serving.cancel()


def _default_limits(settings: Settings) -> Limits:
    """What holds for a handler that says nothing of it."""
    return Limits(
        timeout=settings.job_timeout,
        cancel_grace=settings.cancel_grace,
        memory=settings.job_memory,
        max_jobs_per_child=settings.max_jobs_per_child,
        max_memory_per_child=settings.max_memory_per_child,
        nice=settings.nice,
        threads=settings.threads,
    )


def _log_problems(imported: Imported) -> None:
    for problem in imported.problems:
        log.error("handler not served", file=problem.file, line=problem.line, reason=problem.message)
    for warning in imported.warnings:
        log.warning("handler import", warning=warning)


def _first(group: BaseException) -> str:
    """The sentence of the first error in a group."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return str(group)
