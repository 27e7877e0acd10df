"""Conversion of records to the JSON objects of the public API.  Pure.  Tested by tests/devserver/test_app.py.

The published clients refuse unknown keys and read an absent key as null, so fields that are None are omitted.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from supervisor.devserver.records import Job, Run, Session, StoredEvent

PATH = "main"
STALE_AFTER = 120.0


def claim_view(job: Job, run: Run, heartbeat_interval: float) -> dict[str, Any]:
    """Return the answer to a claim."""
    whole = heartbeat_interval.is_integer()
    return {
        "job_id": job.id,
        "run_id": job.run_id,
        "workflow_name": run.workflow_name,
        "step_name": job.step_name,
        "action": job.action,
        "parameters": msgspec.Raw(job.parameters),
        "attempt": job.attempt,
        "queue": job.queue,
        "heartbeat_interval_seconds": int(heartbeat_interval) if whole else heartbeat_interval,
    }


def job_view(job: Job) -> dict[str, Any]:
    """Return a job with all fields."""
    return job_summary(job) | {"parameters": msgspec.Raw(job.parameters)}


def job_summary(job: Job) -> dict[str, Any]:
    """Return a job without its parameters, which can be large, for the history."""
    return _present(
        {
            "id": job.id,
            "run_id": job.run_id,
            "path_id": PATH,
            "step_name": job.step_name,
            "action": job.action,
            "queue": job.queue,
            "status": job.status,
            "claimed_by": job.claimed_by,
            "claimed_at": _time(job.claimed_at),
            "heartbeat_at": _time(job.heartbeat_at),
            "attempt": job.attempt,
            "max_attempts": job.max_attempts,
            "scheduled_at": _time(job.scheduled_at),
            "last_error": job.last_error,
            "error_type": job.error_type,
            "created_at": _time(job.created_at),
            "updated_at": _time(job.updated_at),
        }
    )


def run_view(run: Run, open_job: Job | None, now: float) -> dict[str, Any]:
    """A run; `open_job` is its one job that is pending or claimed."""
    return run_summary(run, open_job, now) | {"inputs": msgspec.Raw(run.inputs)}


def run_summary(run: Run, open_job: Job | None, now: float) -> dict[str, Any]:
    """A run without its inputs, for the history."""
    optional = {
        "metadata": _raw(run.metadata),
        "tags": _raw(run.tags),
        "external_id": run.external_id,
        "error_type": run.error_type,
        "error_message": run.error_message,
        "cancel_requested_at": _time(run.cancel_requested_at),
        "started_at": _time(run.started_at),
        "completed_at": _time(run.completed_at),
    }
    return _standing(run, open_job, now) | _present(optional)


def run_detail(run: Run, jobs: Sequence[Job], now: float) -> dict[str, Any]:
    """A run with its path, its spec, its result and its jobs."""
    open_job = next((job for job in jobs if job.status in ("pending", "claimed")), None)
    detail = {
        "paths": [_path(run, open_job, now)],
        "spec": msgspec.Raw(run.spec),
        "result_b64": None if run.result is None else base64.b64encode(run.result).decode(),
        "jobs": [job_view(job) for job in jobs],
    }
    return run_view(run, open_job, now) | _present(detail)


def session_view(session: Session, now: float) -> dict[str, Any]:
    """A worker as the list of workers shows it."""
    return _present(
        {
            "id": session.id,
            "name": session.name,
            "version": session.version,
            "last_seen_at": _time(session.last_seen_at),
            "stale": now - session.last_seen_at > STALE_AFTER,
        }
    )


def event_view(event: StoredEvent) -> dict[str, Any]:
    """An entry of the history as subscribers get it."""
    return {
        "type": event.type,
        "run_id": event.run_id,
        "seq": event.seq,
        "timestamp": _time(event.timestamp),
        "data": msgspec.Raw(event.data),
    }


def _standing(run: Run, open_job: Job | None, now: float) -> dict[str, Any]:
    state = _path_state(run, open_job, now)
    return {
        "id": run.id,
        "workflow_name": run.workflow_name,
        "status": run.status,
        "queue": run.queue,
        "attempt": 1,
        "ephemeral": True,
        "path_counts": _path_counts(state),
        "job_counts": _job_counts(open_job, now),
        "wait_summary": _wait_summary(open_job if state == "waiting" else None),
        "errors": _errors(run),
        "created_at": _time(run.created_at),
        "updated_at": _time(run.updated_at),
    }


def _path_state(run: Run, open_job: Job | None, now: float) -> str:
    if run.status != "active":
        return run.status
    return "waiting" if open_job is not None and _is_scheduled(open_job, now) else "working"


def _path_counts(state: str) -> dict[str, int]:
    counts = {name: int(name == state) for name in ("working", "waiting", "completed", "failed")}
    return {"total": 1, "active": counts["working"] + counts["waiting"], **counts}


def _job_counts(open_job: Job | None, now: float) -> dict[str, int]:
    pending = open_job is not None and open_job.status == "pending"
    scheduled = open_job is not None and _is_scheduled(open_job, now)
    claimed = open_job is not None and open_job.status == "claimed"
    return {"ready": int(pending and not scheduled), "scheduled": int(scheduled), "claimed": int(claimed)}


def _wait_summary(waiting: Job | None) -> dict[str, Any]:
    return {
        "waiting_paths": 0 if waiting is None else 1,
        "kind_counts": {} if waiting is None else {"retry": 1},
        "next_wake_at": None if waiting is None else _time(waiting.scheduled_at),
        "waiting_on_signal_names": [],
        "interaction_ids": [],
    }


def _errors(run: Run) -> list[dict[str, str]]:
    if run.error_type is None:
        return []
    return [{"path_id": PATH, "error_type": run.error_type, "error_message": run.error_message or ""}]


def _path(run: Run, open_job: Job | None, now: float) -> dict[str, Any]:
    return {"path_id": PATH, "state": _path_state(run, open_job, now)}


def _is_scheduled(job: Job, now: float) -> bool:
    return job.status == "pending" and job.scheduled_at > now


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _raw(encoded: bytes | None) -> msgspec.Raw | None:
    return None if encoded is None else msgspec.Raw(encoded)


def _time(moment: float | None) -> datetime | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC)
