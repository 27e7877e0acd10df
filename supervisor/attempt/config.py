"""What a slot and its attempts are configured with.  Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from supervisor.concurrency.timers import TimerQueue
from supervisor.limits import Limits
from supervisor.reporting.report import Reporter


@dataclass(frozen=True, slots=True)
class JobConfig:
    """The settings a slot goes by; lengths in seconds, None for what the server says.

    `limits` hold for what a handler does not say itself.
    """

    worker_id: str
    wait: float
    limits: Limits
    lease_ttl: float | None
    max_heartbeat_interval: float | None
    scratch: Path
    mask: Callable[[str], str] = str
    """Hides secrets in what handlers print."""
    forwards_output: bool = False


@dataclass(frozen=True, slots=True)
class SlotResources:
    """What a slot lends to its attempts, one after the other."""

    number: int
    """The slot's."""
    workdir: str
    """A folder for what a job wants to keep while it runs; not there before it is asked for."""
    reporter: Reporter
    alarms: TimerQueue
