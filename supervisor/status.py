"""The status of the program, for the `status` command, the page, the metrics and `/status.json`.  Pure.

Each component creates its own part on request (`Attempt.status`, `Slot.status`, `Pool.status`, `Service.status`).
Durations and ages are in seconds, sizes in bytes, times in seconds since 1970; None means no value.  The status
contains no parameters, no results and no secrets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

ServiceState = Literal["starting", "serving", "paused", "draining", "stopping"]
SlotState = Literal["none", "starting", "idle", "busy", "stopping", "reporting"]
"""State of the slot's child.  "reporting" means that the job has ended and its outcome is being sent."""


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A job that runs, or whose outcome is being sent.

    `elapsed` is the handler's running time.  `lease_left` is the remaining time of the lease, None for a lease that
    does not expire.  `lease_length` is its full length.  `progress` is the last `progress` event.
    """

    job_id: str
    run_id: str
    action: str
    attempt: int
    queue: str
    elapsed: float
    timeout: float | None
    memory_limit: int | None
    cpu_seconds: float | None
    memory: int | None
    lease_left: float | None
    progress: Any
    """JSON: `msgspec.Raw` in the program itself, decoded values in a client."""
    last_line: str | None
    stopping: str | None
    """Reason for stopping the job; None if it is not being stopped."""
    lease_length: float | None = None
    beat_overdue: bool = False
    """True if the next heartbeat is long overdue."""


class SlotStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A slot, its child and its job."""

    slot: int
    pid: int | None
    state: SlotState
    jobs: int
    """Number of jobs that this child has run."""
    job: JobStatus | None
    memory: int | None = None
    """Memory of the child and all processes of its job; None before the first measurement."""


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """A job that has ended; `outcome` is a label of the metric `jobs_total`."""

    job_id: str
    action: str
    attempt: int
    outcome: str
    message: str | None
    seconds: float
    ended_at: float


class ClaimStatus(msgspec.Struct, frozen=True, kw_only=True):
    """State of claiming; `reason` describes why claims are blocked or fail.

    `is_full` is True if every handler runs its maximum number of jobs.
    """

    open_polls: int
    reason: str | None
    last_answer_age: float | None
    last_job_age: float | None
    is_full: bool = False
    is_quarantined: bool = False
    """True if every handler is quarantined."""
    blocked_by: tuple[str, ...] = ()
    """Reasons that block claims, as in the metric `claims_blocked`."""


class SpoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Stored outcomes that the server has not accepted yet."""

    items: int = 0
    bytes: int = 0
    oldest_age: float | None = None
    trouble: str | None = None
    """Disk error of the spool; outcomes then wait in memory only."""


class CodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The loaded handlers.  `error` is the error of the last reload, `outage` the reason why no child can start."""

    generation: int
    loaded_at: float
    actions: tuple[str, ...]
    problems: tuple[str, ...]
    error: str | None
    outage: str | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole status at one moment."""

    version: str
    worker_id: str
    project: str
    base_url: str
    pid: int
    now: float
    started_at: float
    state: ServiceState
    loop_lag: float
    claims: ClaimStatus
    code: CodeStatus
    slots: tuple[SlotStatus, ...]
    recent: tuple[Recent, ...]
    spool: SpoolStatus
    quarantined: tuple[str, ...]
    quarantined_actions: tuple[str, ...] = ()
    """Actions excluded from claims because their handler crashes its children."""
    standstill: str | None = None
    """Description of stalled claims or heartbeats."""
    shortage: str | None = None
    """Number of slots without a child, and the reason."""


def masked(value: Any, mask: Callable[[str], str]) -> Any:
    """Return `value` with all text masked, because text of a handler or server may contain secrets."""
    match value:
        case str():
            return mask(value)
        case msgspec.Struct():
            return type(value)(**{name: masked(getattr(value, name), mask) for name in value.__struct_fields__})
        case msgspec.Raw():
            decoded = msgspec.json.decode(value)
            hidden = masked(decoded, mask)
            return value if hidden == decoded else msgspec.Raw(msgspec.json.encode(hidden))
        case tuple() | list():
            return type(value)(masked(each, mask) for each in value)
        case dict():
            return {masked(key, mask): masked(item, mask) for key, item in value.items()}
        case _:
            return value
