"""The stage of a shutdown, and the signals that advance it.  Runs in the parent.

SIGTERM         drain; again: stop
SIGINT          drain; again: stop; a third time: kill
SIGQUIT         stop
"""

from __future__ import annotations

import asyncio
import enum
import signal
from contextlib import AbstractContextManager, suppress

import structlog

from supervisor.service.signals import signal_handlers

log = structlog.get_logger("shutdown")


class Stage(enum.IntEnum):
    SERVE = 0
    DRAIN = 1  # block claims, finish the running jobs
    STOP = 2  # stop the running jobs, with grace, and report them
    KILL = 3  # end at once


class Shutdown:
    """Owns the stage, which never goes back."""

    def __init__(self) -> None:
        self.stage = Stage.SERVE
        self._changed: list[asyncio.Future[None]] = []

    @property
    def has_begun(self) -> bool:
        return self.stage is not Stage.SERVE

    def signals(self) -> AbstractContextManager[None]:
        """Advance the stage at signals inside the block."""
        return signal_handlers(
            {
                signal.SIGTERM: self.terminate,
                signal.SIGINT: self.interrupt,
                signal.SIGQUIT: lambda: self.advance(Stage.STOP),
            }
        )

    def terminate(self) -> None:
        """SIGTERM: the next stage, but never further than stopping with grace."""
        self.advance(Stage(min(self.stage + 1, Stage.STOP)))

    def hang_up(self) -> None:
        """SIGHUP of a closed terminal: drain.  Shell and kernel both send it, so that a second one changes nothing."""
        self.advance(Stage.DRAIN)

    def interrupt(self) -> None:
        """SIGINT: the next stage, with a hint what another SIGINT does."""
        self.advance(Stage(min(self.stage + 1, Stage.KILL)))
        hints = {
            Stage.DRAIN: "finishing the jobs that run; once more: stop them",
            Stage.STOP: "stopping the jobs that run; once more: kill them and leave",
        }
        if self.stage in hints:
            log.warning(hints[self.stage])

    def advance(self, stage: Stage) -> None:
        """Advance to `stage`, unless a later one is reached."""
        self.stage = max(self.stage, stage)
        for waiter in self._changed:
            if not waiter.done():
                waiter.set_result(None)
        self._changed.clear()

    async def reached(self, stage: Stage, *, timeout: float | None = None) -> None:
        """Wait until `stage` is reached, or for `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.stage < stage:
                    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._changed.append(waiter)
                    await waiter
