"""What stands in for the child of a job that has none yet: it shows nothing, does nothing, and is not to be ended."""

from __future__ import annotations

from typing import Never

from supervisor.ipc.messages import Run
from supervisor.linux.exit_status import ExitReport
from supervisor.process.job_channel import JobListener


class NoChild:
    """As a `Child`, in all that an attempt asks of one."""

    pid: int | None = None
    is_idle = False
    is_busy = False
    exit_report: ExitReport | None = None
    last_line: str | None = None
    cpu_seconds: float | None = None

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def terminate(self) -> None: ...

    def resend_sigterm(self) -> None: ...

    def kill_now(self) -> None: ...

    async def kill(self) -> None: ...

    async def ensure_picked_up(self) -> None: ...

    def set_memory_limit(self, _: int) -> bool:
        return True

    async def write_stack(self, _: float) -> bool:
        return False

    async def capture_stop_stack(self, _: float) -> None: ...

    async def stack(self) -> str:
        raise TimeoutError

    async def run(self, order: Run, _: JobListener) -> Never:
        raise AssertionError(f"nobody is there to run {order.job.job_id}")


NO_CHILD = NoChild()
