"""The pid of one child, from the fork until the child is reaped: pidfd, signals, CPU time.  Runs in the parent.

Tested by tests/process/test_child.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace

from supervisor.linux.exit_status import UNKNOWN, ExitStatus
from supervisor.linux.syscalls import cpu_seconds

FORK_TIMEOUT = 1.0
"""Seconds to wait for the pid of an unwanted child before giving up on the fork, which takes a millisecond."""
REAP_RETRY_INTERVAL = 0.001
"""Seconds between attempts to reap a dead child whose parent is not yet this process; no event announces that."""


NEVER_STARTED = ExitStatus(code=70, signal=0, peak_memory=0, cpu=0.0)


class ChildUnkillable(Exception):
    """The child survived SIGKILL and may still work on its job.  Caught by the attempt, which abandons the job."""


class ChildDied(Exception):
    """The child exited before it sent an outcome.  Caught by the attempt, which reads `exit_report`."""


class ExitWatch:
    """Waits for the exit of one child and reaps it.

    `on_exit` is called while the child is a zombie, `on_reaped` once its exit status is known, and `on_unkillable`
    when the child survives SIGKILL.
    """

    def __init__(
        self,
        reserved: int,
        *,
        on_exit: Callable[[int], None],
        on_reaped: Callable[[ExitStatus], None],
        on_unkillable: Callable[[], None],
    ) -> None:
        self.pid: int | None = None
        """None until the pid is known."""
        self.jobs = 0
        """Number of jobs started in the child."""
        self.is_unkillable = False
        self._loop = asyncio.get_running_loop()
        self._on_exit = on_exit
        self._on_reaped = on_reaped
        self._on_unkillable = on_unkillable
        self._pidfd = reserved
        """Reserves a descriptor number until the pid is known; then the child's pidfd; -1 once closed."""
        self._cpu_before_job = 0.0
        self._cpu_after_job = 0.0
        self._pid_known = asyncio.Event()  # also set when there will be no pid
        self._ended = asyncio.Event()
        self._kill_timer: asyncio.TimerHandle | None = None

    def watch(self, pid: int) -> None:
        """Watch the process `pid`; raise `OSError` when the kernel gives no pidfd for it."""
        reserved, self._pidfd = self._pidfd, -1
        os.close(reserved)
        self._pidfd = os.pidfd_open(pid)
        self.pid = pid
        self._pid_known.set()
        self._loop.add_reader(self._pidfd, self._exited, pid)

    async def wait_for_pid(self) -> None:
        """Wait up to `FORK_TIMEOUT` for the pid: a child cannot be killed during its fork, but would appear later."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FORK_TIMEOUT):
                await self._pid_known.wait()

    def wait(self) -> Awaitable[bool]:
        """Wait until `stop_waiting`."""
        return self._ended.wait()

    def signal(self, number: signal.Signals) -> None:
        if self.pid is not None and self._pidfd >= 0:
            # The handler may have executed another user's program, or the child was reaped elsewhere.
            with contextlib.suppress(PermissionError, ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def expect_exit(self, timeout: float) -> None:
        """Report the child as unkillable if it has not exited `timeout` seconds after the first call."""
        if self._kill_timer is None:
            self._kill_timer = self._loop.call_later(timeout, self._survived_sigkill)

    def _survived_sigkill(self) -> None:
        self.is_unkillable = True
        self._on_unkillable()

    def stop_waiting(self) -> None:
        """Release all waiters: the child was reaped, was never started, or is unkillable."""
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._pid_known.set()
        self._ended.set()

    def close(self) -> None:
        """Close the pidfd."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def ready(self, pid: int) -> None:
        """Note the CPU time that the start of the child has used."""
        self._cpu_after_job = cpu_seconds(pid) or 0.0

    def start_job(self) -> None:
        self.jobs += 1
        self._cpu_before_job = self._cpu_after_job

    def end_job(self, cpu: float) -> None:
        """Note the CPU time that the child had used when its job ended."""
        self._cpu_after_job = cpu

    @property
    def job_cpu_seconds(self) -> float | None:
        """CPU time of the current job, without processes that the job started; None once the child is gone."""
        used = cpu_seconds(self.pid) if self.pid is not None else None
        return None if used is None else used - self._cpu_before_job

    def _exited(self, pid: int) -> None:
        # The pidfd reports the exit, not the pipe: a grandchild may hold the pipe open for hours.
        self._loop.remove_reader(self._pidfd)
        try:
            self._on_exit(pid)
        finally:  # an error in the child's last messages must not keep the parent from reaping the child
            self._reap(pid)

    def _reap(self, pid: int) -> None:
        own_cpu = self.job_cpu_seconds
        try:
            _, status, usage = os.wait4(pid, 0)
        except ChildProcessError:
            if self._is_reaped:  # by another part of this program, or by the kernel, where SIGCHLD is ignored
                self._on_reaped(UNKNOWN)
            else:
                # The child died before the intermediate process, which is still its parent, has exited.
                self._loop.call_later(REAP_RETRY_INTERVAL, self._reap, pid)
        else:
            how = ExitStatus.of(status, usage)
            # From the second job on count the child's own time only: an earlier job may have started the processes
            # that the child has waited for.
            self._on_reaped(how if self.jobs <= 1 or own_cpu is None else replace(how, cpu=own_cpu))

    @property
    def _is_reaped(self) -> bool:
        """True if not even a zombie is left."""
        try:
            signal.pidfd_send_signal(self._pidfd, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # a zombie of another user
            pass
        return False
