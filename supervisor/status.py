"""What the program says of itself: to `status`, to the page, to the metrics and to `/status.json`.  Pure.

Each owner fills its own part (`Attempt.status`, `Slot.status`, `Pool.status`, `Service.status`); nobody keeps a copy.
Lengths and ages are in seconds, sizes in bytes, times in seconds since 1970; None means that there is none.  No
parameters, no results and no secrets stand in here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

ServiceState = Literal["starting", "serving", "paused", "draining", "stopping"]
SlotState = Literal["none", "starting", "idle", "busy", "stopping", "reporting"]
"""What its child does; or "reporting": its job has ended, and the server is still to be told how."""


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A job that runs, or whose outcome is on its way.  `elapsed` ends with its handler; `lease_left` is what is left
    of the `lease_length` that a renewal gives, None where nobody gives the job away; `progress` is the newest
    `progress` event."""

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
    """JSON: a `msgspec.Raw` in the program itself, decoded when it comes from another one."""
    last_line: str | None
    stopping: str | None
    """Why it is being stopped."""
    lease_length: float | None = None
    beat_overdue: bool = False
    """Whether a heartbeat should have been sent long ago."""


class SlotStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A slot, its child and its job."""

    slot: int
    pid: int | None
    state: SlotState
    jobs: int
    """How many jobs this child has run."""
    job: JobStatus | None
    memory: int | None = None
    """Of the child and all that its job started; None until somebody has looked."""


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """A job that has ended here; `outcome` is a label of the metric `jobs_total` (see `metrics`)."""

    job_id: str
    action: str
    attempt: int
    outcome: str
    message: str | None
    seconds: float
    ended_at: float


class ClaimStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether jobs are asked for; `reason` says why not, or what goes wrong.

    `is_full` when every handler runs as many jobs as it may.
    """

    open_polls: int
    reason: str | None
    last_answer_age: float | None
    last_job_age: float | None
    is_full: bool = False
    is_quarantined: bool = False
    """Whether every handler is quarantined."""
    blocked_by: tuple[str, ...] = ()
    """What keeps us from asking, by the names in the metric `claims_blocked`."""


class SpoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Outcomes that the server does not have yet."""

    items: int = 0
    bytes: int = 0
    oldest_age: float | None = None
    trouble: str | None = None
    """Why outcomes cannot be put there, and wait in memory only."""


class CodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The handlers as they are loaded; `error` is why the last reload was not taken over, `outage` why no child can be
    born just now."""

    generation: int
    loaded_at: float
    actions: tuple[str, ...]
    problems: tuple[str, ...]
    error: str | None
    outage: str | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one instant."""

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
    """Actions that are left out of claims, because their handler kills its children."""
    standstill: str | None = None
    """What does not move that should: claims, or heartbeats."""
    shortage: str | None = None
    """How many slots cannot have a child, and why."""


def masked(said: Any, mask: Callable[[str], str]) -> Any:
    """The same, with all text in it masked: a handler, a server or a module may have said anything."""
    match said:
        case str():
            return mask(said)
        case msgspec.Struct():
            return type(said)(**{name: masked(getattr(said, name), mask) for name in said.__struct_fields__})
        case msgspec.Raw():
            told = msgspec.json.decode(said)
            hidden = masked(told, mask)
            return said if hidden == told else msgspec.Raw(msgspec.json.encode(hidden))
        case tuple() | list():
            return type(said)(masked(each, mask) for each in said)
        case dict():
            return {masked(key, mask): masked(value, mask) for key, value in said.items()}
        case _:
            return said
