"""Where the program as a whole is going: what it says of that, and what can be asked of it.  Runs in the parent."""

from __future__ import annotations

import time

from supervisor.pool import Pool
from supervisor.shutdown import Shutdown, Stage
from supervisor.status import CodeStatus, ServiceState
from supervisor.steering import Refused


class Course:
    """Made when the handlers are loaded."""

    def __init__(self, pool: Pool, shutdown: Shutdown) -> None:
        self._pool = pool
        self._shutdown = shutdown
        self._loaded_at = time.time()

    @property
    def state(self) -> ServiceState:
        if self._shutdown.stage is Stage.SERVE:
            return "serving" if self._pool.is_known else "starting"
        return "draining" if self._shutdown.stage is Stage.DRAIN else "stopping"

    @property
    def code(self) -> CodeStatus:
        imported = self._pool.zygote.imported
        return CodeStatus(
            generation=1,
            loaded_at=self._loaded_at,
            actions=tuple(handler.action for handler in imported.handlers),
            problems=tuple(f"{each.file}:{each.line}: {each.message}" for each in imported.problems),
            error=None,
        )

    def pause(self, by: str) -> None:
        raise Refused(f"{by}: there is no pausing yet")

    def resume(self, by: str) -> None:
        raise Refused(f"{by}: there is no pausing yet")

    def drain(self, by: str) -> None:  # noqa: ARG002 - see Steering
        self._shutdown.advance(Stage.DRAIN)

    async def reload(self, by: str) -> None:
        raise Refused(f"{by}: there is no reloading yet")
