"""What is shown of a job that runs, and of one that has failed.  Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from supervisor.attempt.lease import Lease
from supervisor.attempt.no_child import NoChild
from supervisor.attempt.outcome import StopReason
from supervisor.job import Failed, Job
from supervisor.limits import Limits
from supervisor.process.child import Child
from supervisor.process.usage import Usage
from supervisor.status import JobStatus

MAX_LINE_CHARS = 500
MAX_MESSAGE_CHARS = 300
"""Characters of a printed line, and of an error message, that are shown."""


def job_status(
    job: Job,
    *,
    child: Child | NoChild,
    lease: Lease,
    limits: Limits,
    elapsed: float,
    progress: bytes,
    stop: StopReason | None,
    beat_overdue: bool,
    usage: Usage | None,
    mask: Callable[[str], str],
    now: float,
) -> JobStatus:
    """How a job goes; `usage` is what its child's process tree uses, if somebody has looked."""
    own_cpu, line = child.cpu_seconds, child.last_line
    return JobStatus(
        job_id=job.job_id,
        run_id=job.run_id,
        action=job.action,
        attempt=job.attempt,
        queue=job.queue,
        elapsed=elapsed,
        timeout=limits.timeout,
        memory_limit=limits.memory,
        cpu_seconds=own_cpu + usage.others_cpu if usage and own_cpu is not None else own_cpu,
        memory=usage.memory if usage else None,
        lease_left=_finite(lease.expires_at - now),
        lease_length=_finite(lease.length),
        beat_overdue=beat_overdue,
        progress=_json(progress),
        last_line=None if line is None else mask(line)[:MAX_LINE_CHARS],
        stopping=stop.message if stop else None,
    )


def first_line(failed: Failed) -> str:
    """Why it failed, at a glance."""
    return f"{failed.error_type}: {failed.message.partition(chr(10))[0]}"[:MAX_MESSAGE_CHARS]


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None


def _json(payload: bytes) -> msgspec.Raw | None:
    """What a child sent as JSON, if it is some: nobody has looked at it yet."""
    try:
        msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return msgspec.Raw(payload)
