"""What a slot goes by and what it asks of its pool: settings, code, and what concerns the other slots as well."""

from __future__ import annotations

from typing import Protocol

from supervisor.attempt.config import JobConfig
from supervisor.concurrency.loop_monitor import LoopMonitor
from supervisor.job import Job
from supervisor.pool.quarantine import Quarantine
from supervisor.pool.warm_child import ChildProvider
from supervisor.stats import Stats


class SlotHost(ChildProvider, Protocol):
    """What a slot asks of its pool."""

    @property
    def config(self) -> JobConfig:
        """The settings of now; an attempt goes by those of its beginning."""

    @property
    def loop_monitor(self) -> LoopMonitor:
        """Since when the program is awake."""

    def mark_serving(self) -> None:
        """A claim was answered: the server knows us."""

    def claimable_actions(self) -> tuple[str, ...]:
        """The actions that may be claimed now."""

    def partial_wait(self, asked: tuple[str, ...]) -> float:
        """Seconds that a claim may wait which leaves out actions: they are to be asked for soon after."""

    def leave_out(self, action: str) -> None:
        """The handler of `action` is quarantined: open claims that ask for it end soon."""

    def reserve(self, job: Job) -> bool:
        """Have this very attempt for oneself until `leave`; false when a slot has it already."""

    def release(self, job: Job) -> None:
        """The attempt has ended here."""

    def notify_capacity(self) -> None:
        """Of some action one more job may run, perhaps: a job has ended, or a claim has."""

    async def wait_for_capacity(self) -> None:
        """Wait until there are `open_actions`."""

    @property
    def quarantine(self) -> Quarantine:
        """Which jobs are not to be run."""

    @property
    def stats(self) -> Stats:
        """Where what happens is written down."""
