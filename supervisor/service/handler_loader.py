"""The loaded handlers: the current zygote, its restart after a crash, and its replacement by a reload.

Runs in the parent.  Its death harms no job, and neither does its end: children are the parent's own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from supervisor.concurrency.backoff import Backoff
from supervisor.ipc.messages import Imported
from supervisor.process.child import Child
from supervisor.process.reaper import Reaper
from supervisor.process.zygote import StartFailed, Zygote, ZygoteConfig, start_zygote
from supervisor.status import CodeStatus

log = structlog.get_logger("code")

RETIRE_TIMEOUT = 2.0
"""Seconds that a zygote may take to exit by itself: exit handlers of modules may take long."""
STABLE_TIME = 60.0
"""Seconds of life after which the death of a zygote does not count as a repeated one."""

Use = Callable[[Zygote], None]


class HandlerLoader:
    """Owns the current zygote; `use` is called with each zygote that replaces another."""

    def __init__(self, nursery: ZygoteConfig, family: Reaper) -> None:
        self.generation = 0
        """The number of times that handlers were loaded."""
        self.loaded_at = 0.0
        self.error: str | None = None
        """The reason for which the last reload failed."""
        self.start_error: str | None = None
        """The reason for which no child can be started now."""
        self._config = nursery
        self._reaper = family
        self._zygote: Zygote | None = None
        self._change_lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Code generation {self.generation} {self._zygote}>"

    @property
    def zygote(self) -> Zygote:
        """The current zygote."""
        assert self._zygote is not None, "nothing is loaded"
        return self._zygote

    @property
    def status(self) -> CodeStatus:
        imported = self.zygote.imported
        return CodeStatus(
            generation=self.generation,
            loaded_at=self.loaded_at,
            actions=tuple(handler.action for handler in imported.handlers),
            problems=tuple(problem.located_message for problem in imported.problems),
            error=self.error,
            outage=self.start_error,
        )

    async def load(self) -> None:
        """Load the handlers for the first time; raise `StartFailed` if there is none."""
        self._take_over(await self._start(self._config), self._config)

    async def reload(self, nursery: ZygoteConfig, use: Use) -> None:
        """Load the handlers again; raise `StartFailed`, and keep the current ones, if the new ones are broken."""
        async with self._change_lock:
            zygote = await self._start(nursery)
            try:
                _refuse_losses(self.zygote.imported, zygote.imported)
                await self._start_trial_child(zygote)
            except BaseException:
                await zygote.kill()
                raise
            old = self.zygote
            self._take_over(zygote, nursery)
            use(zygote)
        await _retire(old)

    async def keep_alive(self, use: Use) -> None:
        """Start a new zygote whenever the current one dies; jobs and their children do not notice."""
        backoff = Backoff(0.1, 30.0)
        while True:
            dead = self.zygote
            since = asyncio.get_running_loop().time()
            code = await dead.exited()
            if dead is not self._zygote:
                continue  # a reload ended it
            if asyncio.get_running_loop().time() - since > STABLE_TIME:
                backoff.reset()
            if self.start_error is None:  # once for a series of failed starts
                log.warning("the zygote died, a new one is started", code=code)
            # Keep the reason for which the last start failed.
            self.start_error = self.start_error or f"the process that imports the handlers has ended with code {code}"
            await asyncio.sleep(backoff.next())
            async with self._change_lock:
                if dead is self._zygote:
                    await self._restart(use)

    async def close(self) -> None:
        """End the current zygote."""
        if self._zygote is not None:
            await self._zygote.kill()

    async def _restart(self, use: Use) -> None:
        try:
            self._take_over(await self._start(self._config), self._config)
        except StartFailed as failed:
            if str(failed) != self.start_error:
                log.error("no new zygote", error=str(failed))
            self.start_error = str(failed)
        else:
            use(self.zygote)

    async def _start(self, nursery: ZygoteConfig) -> Zygote:
        zygote = await start_zygote(nursery, self._reaper)
        if not zygote.imported.handlers:
            await zygote.kill()
            raise StartFailed(_nothing(nursery, zygote.imported))
        return zygote

    async def _start_trial_child(self, zygote: Zygote) -> None:
        """Check that children of the zygote start, while all slots still have their old children."""
        child = await Child.start(zygote, self._reaper)
        await child.kill()

    def _take_over(self, zygote: Zygote, nursery: ZygoteConfig) -> None:
        _log_problems(zygote.imported)  # only now: a refusal is one line with all problems
        self._zygote, self._config = zygote, nursery
        self.start_error = None
        self.generation += 1
        self.loaded_at = time.time()


async def _retire(zygote: Zygote) -> None:
    """Let the zygote exit; nothing requests a child from it any more."""
    try:
        async with asyncio.timeout(RETIRE_TIMEOUT):
            await zygote.retire()
    except TimeoutError:
        log.warning("the zygote of the old code does not leave: killed", pid=zygote.pid)
    finally:
        await zygote.kill()


def _refuse_losses(old: Imported, new: Imported) -> None:
    """A file that is taken away is meant to be; one that cannot be imported any more is not."""
    known = {problem.file for problem in old.problems}
    losses = [problem for problem in new.problems if problem.file not in known]
    if losses:
        raise StartFailed("; ".join(problem.located_message for problem in losses))


def _nothing(nursery: ZygoteConfig, imported: Imported) -> str:
    folders = ", ".join(map(str, nursery.folders))
    return "; ".join(
        [*(problem.located_message for problem in imported.problems), f"no handler could be loaded from {folders}"]
    )


def _log_problems(imported: Imported) -> None:
    for problem in imported.problems:
        log.error("handler not served", file=problem.file, line=problem.line, reason=problem.message)
    for warning in imported.warnings:
        log.warning("handler import", warning=warning)
