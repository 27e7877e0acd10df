"""What an operator can have done while the program serves, by signals or by commands.  Runs in the parent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from supervisor.control.operator import CommandRejected
from supervisor.linux import descriptor_limit
from supervisor.linux.confinement import Confinement
from supervisor.logs import log as logging
from supervisor.logs.redaction import Mask
from supervisor.pool.authorization import Authorization
from supervisor.pool.claim_gate import BlockReason
from supervisor.pool.pool import Pool
from supervisor.process.zygote import StartFailed, Zygote, ZygoteConfig
from supervisor.proxy import Proxy
from supervisor.reporting.report import Reporter
from supervisor.service.derived_config import job_config, zygote_config
from supervisor.service.handler_loader import HandlerLoader
from supervisor.service.handler_watch import HandlerWatch
from supervisor.service.shutdown import Shutdown, Stage
from supervisor.service.state_dump import dump
from supervisor.service.systemd_notify import Notifier
from supervisor.service.systemd_status import SystemdReporter
from supervisor.settings.bounded_read import BoundedRead
from supervisor.settings.credential import CredentialSource
from supervisor.settings.proxy_source import proxy_to
from supervisor.settings.resolution import ConfigError, keep_fixed
from supervisor.settings.settings import Settings
from supervisor.settings.suggestions import misspelt_variables
from supervisor.status import CodeStatus, ServiceState

if TYPE_CHECKING:
    from supervisor.dialects.http.client import Client  # whose library is imported while the zygote starts
from collections.abc import Awaitable

log = structlog.get_logger("service")

NOT_RELOADED = "not reloaded: the old handlers and settings stay"


@dataclass(frozen=True)
class ReloadSources:
    """Where what can be reloaded is read again, and what it is read with."""

    settings: Callable[[], Settings]
    key: CredentialSource
    environment: Mapping[str, str]
    scratch: Path
    mask: Mask
    confinement: Confinement
    open_files: int
    """How many descriptors a child may open (RLIMIT_NOFILE, the soft limit)."""
    working_directory: Path

    def read_key(self) -> str:
        """The key as it is now; no log shows it from here on.  Raises `ConfigError`."""
        token = self.key.read().token
        self.mask.add(token)
        return token

    @cached_property
    def reread_settings(self) -> BoundedRead[Settings]:
        """The settings as they are now, read off the loop; raises `ConfigError`."""
        return BoundedRead("the settings, the API key or a handlers folder", self.settings)

    @cached_property
    def reread_key(self) -> BoundedRead[str]:
        """As `read_key`, off the loop."""
        return BoundedRead(f"the API key in {self.key.place}", self.read_key)

    def nursery(self, settings: Settings) -> ZygoteConfig:
        """What a zygote is started with."""
        return zygote_config(
            settings, self.environment, self.confinement, self.working_directory, open_files=self.open_files
        )

    def proxy_to(self, settings: Settings) -> Proxy | None:
        """The proxy on the way to the server; no log shows its password from here on.  Raises `ConfigError`."""
        proxy = proxy_to(settings.base_url, settings.proxy, self.environment)
        for secret in proxy.secrets if proxy is not None else ():
            self.mask.add(secret)
        return proxy

    def warn_of_misspelt(self, settings: Settings) -> None:
        """Say in the log what in the environment looks like a setting and is none."""
        for sentence in misspelt_variables(self.environment, settings.pass_env):
            log.warning(sentence)


@dataclass(frozen=True, slots=True)
class Components:
    """What is open while the program serves."""

    handler_loader: HandlerLoader
    pool: Pool
    client: Client
    authorization: Authorization
    reporter: Reporter
    shutdown: Shutdown
    notifier: Notifier
    systemd_reporter: SystemdReporter
    watch: HandlerWatch


class Operations:
    """Owns the settings of now; the `Course` of a `Helm`, and what signals steer."""

    def __init__(self, plant: Components, settings: Settings, sources: ReloadSources) -> None:
        self.settings = settings
        self._components = plant
        self._sources = sources
        self._reloads = CoalescingQueue(self._reload, at_the_end="the program is ending")
        self._dumps = CoalescingQueue(self._dump, at_the_end="")

    @property
    def state(self) -> ServiceState:
        """What the program as a whole is doing."""
        stage, pool = self._components.shutdown.stage, self._components.pool
        if stage >= Stage.STOP:
            return "stopping"
        if stage is Stage.DRAIN:
            return "draining"
        if pool.gate.is_blocked_by(BlockReason.PAUSED) or pool.gate.is_blocked_by(BlockReason.STOPPED_BY_SIGNAL):
            return "paused"
        return "serving" if pool.is_serving else "starting"

    @property
    def code(self) -> CodeStatus:
        """The handlers as they are loaded."""
        return self._components.handler_loader.status

    async def run(self) -> None:
        """Do what takes a while, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reloads.run(), name="reloads")
            group.create_task(self._dumps.run(), name="dumps")

    def pause(self, by: str) -> None:
        """Claim nothing new until `resume`."""
        self._shut(BlockReason.PAUSED, by)

    def resume(self, by: str) -> None:
        """Claim again, whatever has stopped it."""
        self._lift((BlockReason.PAUSED, BlockReason.STOPPED_BY_SIGNAL), by)

    def pause_by_signal(self, by: str) -> None:
        """Claim nothing new until `go_on`, or `resume`."""
        self._shut(BlockReason.STOPPED_BY_SIGNAL, by)

    def resume_by_signal(self, by: str) -> None:
        """Claim again, unless there was a `pause`: who sends SIGCONT may know nothing of it.

        systemd sends one after each SIGTERM and a shell for each `fg`, so there may be nothing to go on with.
        """
        self._lift((BlockReason.STOPPED_BY_SIGNAL,), by)

    def _shut(self, bar: BlockReason, by: str) -> None:
        pool = self._components.pool
        if self._is_ending("pause", by) or pool.gate.is_blocked_by(bar):
            return
        # A claim is not broken off: the server may have leased a job to it already.
        log.warning("paused: nothing new is claimed", by=by, open_claims=pool.open_polls)
        pool.block(bar, f"paused by {by} since {time.strftime('%H:%M:%S UTC', time.gmtime())}")

    def _lift(self, bars: Sequence[BlockReason], by: str) -> None:
        pool = self._components.pool
        if not any(map(pool.gate.is_blocked_by, bars)):
            return
        for bar in bars:
            pool.unblock(bar)
        if pool.gate.is_blocked_by(BlockReason.PAUSED):
            log.warning("still paused: nothing is claimed until `mobius-supervisor resume`", by=by)
        else:
            log.warning("resumed", by=by)

    def drain(self, by: str) -> None:
        """Claim nothing new, finish what runs, end the program."""
        log.info("told to drain", by=by)
        self._components.shutdown.advance(Stage.DRAIN)

    def resize(self, by: str, more: int) -> None:
        """So many children more, or less, but never none."""
        if self._is_ending("resize", by):
            return
        pool = self._components.pool
        before = pool.size
        if more > 0 and (sentence := descriptor_limit.shortage(before + more)):
            log.warning("not resized", by=by, reason=sentence)
            return
        pool.resize(before + more)
        if pool.size == before:
            log.info("not resized: one child is the least", by=by)
        else:
            log.info("resized", by=by, children=pool.size, before=before)

    def dump(self) -> None:
        """Log what all tasks and jobs are doing."""
        self._dumps.ask("SIGUSR1")

    async def reload(self, by: str) -> None:
        """Take over new handlers and settings, without dropping a job; raise `Refused` when the old ones stay."""
        error = await self.ask_to_reload(by)
        if error is not None:
            raise CommandRejected(self._sources.mask(error))

    def ask_to_reload(self, by: str) -> asyncio.Future[str | None]:
        """As `reload`, without waiting."""
        return self._reloads.ask(by)

    def _is_ending(self, what: str, by: str) -> bool:
        is_ending = self._components.shutdown.stage is not Stage.SERVE
        if is_ending:
            log.info("ignored: the program is ending", asked=what, by=by)
        return is_ending

    async def _reload(self, by: str) -> str | None:
        if self._is_ending("reload", by):
            return "the program is ending"
        plant = self._components
        log.info("reloading", by=by)
        plant.notifier.reloading()
        try:
            await self._take_over()
        except (ConfigError, StartFailed) as error:
            plant.handler_loader.error = str(error)
            log.error(NOT_RELOADED, error=str(error))
        except Exception as error:  # jobs run on what there is, and whatever is wrong with the new must not end them
            plant.handler_loader.error = f"{type(error).__name__}: {error}"
            log.exception(NOT_RELOADED, error=plant.handler_loader.error)
        else:
            plant.handler_loader.error = None
            actions = [handler.action for handler in plant.handler_loader.zygote.imported.handlers]
            log.info("reloaded", generation=plant.handler_loader.generation, actions=actions)
        plant.systemd_reporter.ready()
        await plant.systemd_reporter.send_status()
        return plant.handler_loader.error

    async def _take_over(self) -> None:
        """All of it or nothing: what can fail comes first."""
        settings, fixed = keep_fixed(self.settings, await self._sources.reread_settings())
        if settings.workers > self._components.pool.size and (sentence := descriptor_limit.shortage(settings.workers)):
            raise ConfigError(sentence)
        self._sources.warn_of_misspelt(settings)
        token, proxy = await self._sources.reread_key(), self._sources.proxy_to(settings)
        rules = job_config(settings, self._sources.scratch, self._sources.mask)

        def use(zygote: Zygote) -> None:
            self._components.pool.use(zygote, rules)
            for flag in fixed:
                log.warning("%s cannot change while the program runs: it needs a restart", flag)
            self._apply(settings, token, proxy)

        await self._components.handler_loader.reload(self._sources.nursery(settings), use)

    def _apply(self, settings: Settings, token: str, proxy: Proxy | None) -> None:
        plant, old = self._components, self.settings
        self.settings = settings
        plant.client.renew(token, settings.queues, proxy)
        plant.authorization.timeout = settings.auth_timeout
        plant.reporter.spool_after = settings.spool_after
        plant.watch.use(settings.handlers)
        if (settings.log_level, settings.log_format) != (old.log_level, old.log_format):
            logging.configure(settings.log_level, settings.log_format, mask=self._sources.mask)
        if settings.workers != old.workers and plant.shutdown.stage is Stage.SERVE:
            plant.pool.resize(settings.workers)

    async def _dump(self, _: str) -> None:
        await dump(self._components.pool.attempts)


class CoalescingQueue:
    """`fulfil` is called with the name of who asks first; it returns None, or why it could not be done."""

    def __init__(self, fulfil: Callable[[str], Awaitable[str | None]], *, at_the_end: str) -> None:
        self._fulfil = fulfil
        self._at_the_end = at_the_end
        self._asked = asyncio.Event()
        self._waiting: list[tuple[str, asyncio.Future[str | None]]] = []

    def ask(self, by: str) -> asyncio.Future[str | None]:
        """Have it done; the answer may be waited for, or not."""
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((by, answer))
        self._asked.set()
        return answer

    async def run(self) -> None:
        """Do what is asked for until cancelled; who still waits then is answered with `at_the_end`."""
        answers: list[asyncio.Future[str | None]] = []
        try:
            while True:
                await self._asked.wait()
                self._asked.clear()
                by = self._waiting[0][0]
                answers = [answer for _, answer in self._waiting]
                self._waiting.clear()
                _tell(answers, await self._fulfil(by))
        finally:
            _tell([*answers, *(answer for _, answer in self._waiting)], self._at_the_end)


def _tell(answers: list[asyncio.Future[str | None]], what: str | None) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_result(what)
