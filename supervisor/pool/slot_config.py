"""The pool as a slot sees it: settings, handlers, and what slots share.  Implemented by `Pool`; tested with it."""

from __future__ import annotations

from typing import Protocol

from supervisor.attempt.config import JobConfig
from supervisor.concurrency.loop_monitor import LoopMonitor
from supervisor.job import Job
from supervisor.pool.quarantine import Quarantine
from supervisor.pool.warm_child import ChildProvider
from supervisor.stats import Stats


class SlotHost(ChildProvider, Protocol):
    """The pool as a slot sees it."""

    @property
    def config(self) -> JobConfig:
        """The current settings; an attempt keeps those from its start."""

    @property
    def loop_monitor(self) -> LoopMonitor:
        """Detects that the program was stopped or suspended."""

    def mark_serving(self) -> None:
        """Note that the server has answered a claim."""

    def claimable_actions(self) -> tuple[str, ...]:
        """The actions that may be claimed now."""

    def partial_wait(self, asked: tuple[str, ...]) -> float:
        """Return how many seconds a claim that leaves out actions may wait, so that these are claimed soon."""

    def leave_out(self, action: str) -> None:
        """Let open claims for `action` end soon, because its handler is quarantined."""

    def reserve(self, job: Job) -> bool:
        """Reserve this attempt for one slot until `release`; False if another slot has it already."""

    def release(self, job: Job) -> None:
        """Release the attempt at its end."""

    def notify_capacity(self) -> None:
        """Wake slots in `wait_for_capacity`, because a job or a claim has ended."""

    async def wait_for_capacity(self) -> None:
        """Wait until there may be `claimable_actions`."""

    @property
    def quarantine(self) -> Quarantine:
        """Handlers and jobs that are not run, because they kill their children."""

    @property
    def stats(self) -> Stats:
        """The counters for metrics."""
