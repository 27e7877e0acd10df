"""What a development server can be told.  Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from supervisor.devserver.faults import FaultScript
from supervisor.devserver.store import random_id


@dataclass(frozen=True, slots=True)
class DevServerSettings:
    """Lengths are in seconds, sizes in bytes.

    `database` None keeps everything in memory; `api_key` None accepts any key; `projects` None creates every project
    that is asked for.  `journal` is how many calls `DevServer.calls` remembers, True for ten thousand.
    `faults` is a script of what shall go wrong (see `faults.parse_faults`).
    """

    host: str = "127.0.0.1"
    port: int = 0
    database: Path | str | None = None
    api_key: bytes | str | None = None
    projects: frozenset[str] | None = None
    heartbeat_interval: float = 10.0
    lease_ttl: float | None = None
    immediate_cancellation: bool = False
    keepalive: float = 15.0
    max_body: int = 64 * 1024 * 1024
    journal: bool | int = False
    faults: FaultScript | None = None
    new_id: Callable[[str], str] = random_id

    @property
    def lease_length(self) -> float:
        return 3 * self.heartbeat_interval if self.lease_ttl is None else self.lease_ttl

    @property
    def journal_size(self) -> int:
        return 10_000 * self.journal if isinstance(self.journal, bool) else self.journal
