"""The handlers as they are loaded: which zygote is current, how it is kept alive, how another one takes its place.

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
"""Seconds that a zygote may take to leave by itself: what handlers do at the end of their process is their business."""
STABLE_TIME = 60.0
"""Seconds after which the death of a zygote has nothing to do with that of the one before."""

Use = Callable[[Zygote], None]


class HandlerLoader:
    """One zygote after the other; `use` is called with each that takes the place of another."""

    def __init__(self, nursery: ZygoteConfig, family: Reaper) -> None:
        self.generation = 0
        """How often handlers were loaded."""
        self.loaded_at = 0.0
        self.error: str | None = None
        """Why the last reload was not taken over."""
        self.start_error: str | None = None
        """Why no child can be born just now."""
        self._config = nursery
        self._reaper = family
        self._zygote: Zygote | None = None
        self._change_lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Code generation {self.generation} {self._zygote}>"

    @property
    def zygote(self) -> Zygote:
        """The current one."""
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
        """Load the handlers for the first time; raise `StartFailed` when there is none."""
        self._take_over(await self._start(self._config), self._config)

    async def reload(self, nursery: ZygoteConfig, use: Use) -> None:
        """Load them anew; raise `StartFailed`, and keep what there is, when that is worse than what there is."""
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
                continue  # a reload has ended it
            if asyncio.get_running_loop().time() - since > STABLE_TIME:
                backoff.reset()
            if self.start_error is None:  # not for each of those that do not come up
                log.warning("the zygote died, a new one is started", code=code)
            # Not over the reason why the last one did not come up.
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
        """See that children of it come up, while all slots still have others."""
        child = await Child.start(zygote, self._reaper)
        await child.kill()

    def _take_over(self, zygote: Zygote, nursery: ZygoteConfig) -> None:
        _log_problems(zygote.imported)  # not before: what is refused is told in one line, with all that is wrong
        self._zygote, self._config = zygote, nursery
        self.start_error = None
        self.generation += 1
        self.loaded_at = time.time()


async def _retire(zygote: Zygote) -> None:
    """Have it leave; nothing asks it for a child any more."""
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
