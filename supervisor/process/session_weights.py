"""How the sessions of children are weighed against the session of the parent.  Runs in the parent, which owns it.

Each child leads a session, and the kernel shares the CPU among sessions first (sched(7), "The autogroup feature").
A user without CAP_SYS_ADMIN may write ten weights a second, all such users together; a further write fails with
EAGAIN (proc_sched_autogroup_set_nice in the kernel's kernel/sched/autogroup.c).  Such a write waits here and is
retried: neither the loop nor a job waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from supervisor.linux.syscalls import weigh_session

log = structlog.get_logger("child")

RETRY_INTERVAL = 0.05
"""Seconds between two attempts: half of the kernel's interval, because other programs compete for it."""
MAX_DELAY = 10.0
"""Seconds that writes may wait without a break before the log has a line about it."""


class SessionWeights:
    """The niceness of each child's session: what was written, and what waits to be written."""

    def __init__(self, write: Callable[[int, int], object] = weigh_session) -> None:
        self._write = write
        self._written: dict[int, int] = {}  # niceness by pid; a new session has 0
        self._waiting: dict[int, int] = {}
        self._waiting_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._has_logged = False

    @property
    def waiting(self) -> int:
        """How many weights wait to be written."""
        return len(self._waiting)

    def set(self, pid: int, niceness: int) -> None:
        """Weigh the session that `pid` leads: at once, or as soon as the kernel accepts it."""
        if pid in self._waiting:
            del self._waiting[pid]
        if self._written.get(pid, 0) != niceness:
            self._waiting[pid] = niceness
        if self._waiting and self._timer is None:
            self._write_waiting()

    def forget(self, pid: int) -> None:
        """Drop what is known of a process that was reaped: another process may get its pid."""
        self._written.pop(pid, None)
        self._waiting.pop(pid, None)
        if not self._waiting:
            self._rest()

    def _write_waiting(self) -> None:
        self._timer = None
        while self._waiting:
            # A child that must end comes first: its niceness is 0.
            pid = min(self._waiting, key=self._waiting.__getitem__)
            try:
                self._write(self._waiting[pid], pid)
                self._written[pid] = self._waiting[pid]
            except BlockingIOError:
                self._retry_later()
                return
            except (FileNotFoundError, ProcessLookupError):
                pass  # the kernel does not group by session, or the process has ended
            except OSError as error:
                self._warn("child session weight not set", pid=pid, error=error.strerror)
            del self._waiting[pid]
        self._rest()

    def _retry_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(RETRY_INTERVAL, self._write_waiting)
        if self._waiting_since is None:
            self._waiting_since = loop.time()
        elif loop.time() - self._waiting_since > MAX_DELAY:
            reason = "the kernel accepts ten weights a second from users without CAP_SYS_ADMIN"
            self._warn("child session weights delayed", waiting=self.waiting, reason=reason)

    def _rest(self) -> None:
        self._waiting_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _warn(self, event: str, **facts: object) -> None:
        """Log the first fault only: every job may have the same one."""
        if not self._has_logged:
            self._has_logged = True
            log.warning(event, **facts)
