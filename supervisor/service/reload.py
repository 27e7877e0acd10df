"""Reload: the handlers, the settings and the key are read again while jobs run.  Runs in the parent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from supervisor.linux import descriptor_limit
from supervisor.linux.confinement import Confinement
from supervisor.logs import log as logging
from supervisor.logs.redaction import Mask
from supervisor.pool.authorization import Authorization
from supervisor.pool.pool import Pool
from supervisor.process.zygote import StartFailed, Zygote, ZygoteConfig
from supervisor.proxy import Proxy
from supervisor.reporting.report import Reporter
from supervisor.service.derived_config import job_config, zygote_config
from supervisor.service.handler_loader import HandlerLoader
from supervisor.service.handler_watch import HandlerWatch
from supervisor.service.shutdown import Shutdown
from supervisor.service.systemd_notify import Notifier
from supervisor.service.systemd_status import SystemdReporter
from supervisor.settings.bounded_read import BoundedRead
from supervisor.settings.credential import CredentialSource
from supervisor.settings.proxy_source import proxy_to
from supervisor.settings.resolution import ConfigError, keep_fixed
from supervisor.settings.settings import Settings
from supervisor.settings.suggestions import misspelt_variables

if TYPE_CHECKING:
    from supervisor.dialects.http.client import Client  # whose library is imported while the zygote starts
from collections.abc import Awaitable

log = structlog.get_logger("service")

NOT_RELOADED = "not reloaded: the old handlers and settings stay"
ENDING = "the program is ending"


@dataclass(frozen=True)
class ReloadSources:
    """Where a reload reads the settings, the key and the handlers."""

    settings: Callable[[], Settings]
    key: CredentialSource
    environment: Mapping[str, str]
    scratch: Path
    mask: Mask
    confinement: Confinement
    open_files: int
    """Descriptors that a child may open: the soft limit of RLIMIT_NOFILE."""
    working_directory: Path

    def read_key(self) -> str:
        """Return the current key, and mask it in the log from now on; raise `ConfigError`."""
        token = self.key.read().token
        self.mask.add(token)
        return token

    @cached_property
    def reread_settings(self) -> BoundedRead[Settings]:
        """Reads the current settings in a thread; raises `ConfigError`."""
        return BoundedRead("the settings, the API key or a handlers folder", self.settings)

    @cached_property
    def reread_key(self) -> BoundedRead[str]:
        """Calls `read_key` in a thread."""
        return BoundedRead(f"the API key in {self.key.place}", self.read_key)

    def zygote_config(self, settings: Settings) -> ZygoteConfig:
        """Return the configuration of a new zygote."""
        return zygote_config(
            settings, self.environment, self.confinement, self.working_directory, open_files=self.open_files
        )

    def proxy_to(self, settings: Settings) -> Proxy | None:
        """Return the proxy for calls to the server, and mask its password in the log; raise `ConfigError`."""
        proxy = proxy_to(settings.base_url, settings.proxy, self.environment)
        for secret in proxy.secrets if proxy is not None else ():
            self.mask.add(secret)
        return proxy

    def warn_of_misspelt(self, settings: Settings) -> None:
        """Log a warning for each environment variable that resembles a setting and is none."""
        for sentence in misspelt_variables(self.environment, settings.pass_env):
            log.warning(sentence)


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of the running program that a reload or an operator changes."""

    handler_loader: HandlerLoader
    pool: Pool
    client: Client
    authorization: Authorization
    reporter: Reporter
    shutdown: Shutdown
    notifier: Notifier
    systemd_reporter: SystemdReporter
    watch: HandlerWatch


class Reloader:
    """Owns the current settings, and replaces settings and handlers without dropping a job."""

    def __init__(self, components: Components, settings: Settings, sources: ReloadSources) -> None:
        self.settings = settings
        self._components = components
        self._sources = sources
        self._requests = CoalescingQueue(self._reload, at_the_end=ENDING)

    async def run(self) -> None:
        """Serve requests until cancelled."""
        await self._requests.run()

    def request(self, by: str) -> asyncio.Future[str | None]:
        """Request a reload; the future resolves to None, or to the reason why the old handlers and settings stay."""
        return self._requests.ask(by)

    async def _reload(self, by: str) -> str | None:
        parts = self._components
        if parts.shutdown.has_begun:
            log.info("request ignored: the program is ending", request="reload", by=by)
            return ENDING
        log.info("reloading", by=by)
        parts.notifier.reloading()
        try:
            await self._take_over()
        except (ConfigError, StartFailed) as error:
            parts.handler_loader.error = str(error)
            log.error(NOT_RELOADED, error=str(error))
        except Exception as error:  # a fault of the new handlers or settings must not end the jobs that run
            parts.handler_loader.error = f"{type(error).__name__}: {error}"
            log.exception(NOT_RELOADED, error=parts.handler_loader.error)
        else:
            parts.handler_loader.error = None
            actions = [handler.action for handler in parts.handler_loader.zygote.imported.handlers]
            log.info("reloaded", generation=parts.handler_loader.generation, actions=actions)
        parts.systemd_reporter.ready()
        await parts.systemd_reporter.send_status()
        return parts.handler_loader.error

    async def _take_over(self) -> None:
        """Replace everything or nothing: the steps that can fail come first."""
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

        await self._components.handler_loader.reload(self._sources.zygote_config(settings), use)

    def _apply(self, settings: Settings, token: str, proxy: Proxy | None) -> None:
        parts, old = self._components, self.settings
        self.settings = settings
        parts.client.renew(token, settings.queues, proxy)
        parts.authorization.timeout = settings.auth_timeout
        parts.reporter.spool_after = settings.spool_after
        parts.watch.use(settings.handlers)
        if (settings.log_level, settings.log_format) != (old.log_level, old.log_format):
            logging.configure(settings.log_level, settings.log_format, mask=self._sources.mask)
        if settings.workers != old.workers and not parts.shutdown.has_begun:
            parts.pool.resize(settings.workers)


class CoalescingQueue:
    """Runs one request at a time, and one more for all that arrive meanwhile.

    `fulfil` gets the name of the first requester; it returns None, or the reason for its failure.
    """

    def __init__(self, fulfil: Callable[[str], Awaitable[str | None]], *, at_the_end: str) -> None:
        self._fulfil = fulfil
        self._at_the_end = at_the_end
        self._asked = asyncio.Event()
        self._waiting: list[tuple[str, asyncio.Future[str | None]]] = []

    def ask(self, by: str) -> asyncio.Future[str | None]:
        """Request a run; the future resolves to what `fulfil` returns."""
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((by, answer))
        self._asked.set()
        return answer

    async def run(self) -> None:
        """Serve requests until cancelled; then resolve those that wait to `at_the_end`."""
        answers: list[asyncio.Future[str | None]] = []
        try:
            while True:
                await self._asked.wait()
                self._asked.clear()
                by = self._waiting[0][0]
                answers = [answer for _, answer in self._waiting]
                self._waiting.clear()
                _resolve(answers, await self._fulfil(by))
        finally:
            _resolve([*answers, *(answer for _, answer in self._waiting)], self._at_the_end)


def _resolve(answers: list[asyncio.Future[str | None]], error: str | None) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_result(error)
