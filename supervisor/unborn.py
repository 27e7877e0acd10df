"""What stands in for the child of a job that has none yet: it shows nothing, and is not to be ended."""

from __future__ import annotations

from typing import cast

from supervisor.process.child import Child
from supervisor.process.exit import Ending


class Unborn:
    """As a `Child`, in all that is asked of one before it is given its job."""

    pid: int | None = None
    is_busy = False
    ending: Ending | None = None
    last_line: str | None = None
    cpu_seconds: float | None = None

    def kill_now(self) -> None:
        """There is nothing to kill."""

    async def stack(self) -> str:
        """There is nobody to write it."""
        raise TimeoutError


UNBORN = cast("Child", Unborn())  # nobody has it run anything
