"""Leases: the worker of each claimed job, and their expiry.  Each method runs inside a transaction of the store.

Tested by tests/devserver/test_store.py.
"""

from __future__ import annotations

import hashlib

import msgspec

from supervisor.devserver.database import Database
from supervisor.devserver.errors import FenceRefused
from supervisor.devserver.records import Job
from supervisor.devserver.requests import ClaimRequest, CompleteRequest, FenceRequest


class Leases:
    """Leases of `ttl` seconds on the jobs of one database."""

    def __init__(self, database: Database, *, ttl: float) -> None:
        self._database = database
        self._ttl = ttl

    def grant(self, project: str, request: ClaimRequest, now: float) -> Job | None:
        """Lease the oldest matching job; return None when there is none."""
        statement = (
            "UPDATE jobs SET status = 'claimed', claimed_by = :worker, claimed_at = :now, expires_at = :expires_at,"
            " updated_at = :now WHERE number = (SELECT number FROM jobs"
            " WHERE project = :project AND status = 'pending' AND scheduled_at <= :now"
            " AND (:queues IS NULL OR queue IN (SELECT value FROM json_each(:queues)))"
            " AND (:actions IS NULL OR action IN (SELECT value FROM json_each(:actions)))"
            " ORDER BY scheduled_at, number LIMIT 1) RETURNING *"
        )
        return self._database.one(
            Job,
            statement,
            project=project,
            worker=request.worker_id,
            queues=_choice(request.queues),
            actions=_choice(request.actions),
            now=now,
            expires_at=now + self._ttl,
        )

    def release(self, job: Job, now: float) -> Job | None:
        """Take back an unused lease; return None when it was used or has ended."""
        statement = (
            "UPDATE jobs SET status = 'pending', claimed_by = NULL, claimed_at = NULL, expires_at = NULL,"
            " updated_at = ? WHERE id = ? AND status = 'claimed' AND claimed_by = ? AND attempt = ?"
            " AND heartbeat_at IS NULL RETURNING *"
        )
        return self._database.one(Job, statement, now, job.id, job.claimed_by, job.attempt)

    def renew(self, job: Job, now: float) -> None:
        statement = "UPDATE jobs SET heartbeat_at = ?, expires_at = ? WHERE id = ?"
        self._database.execute(statement, now, now + self._ttl, job.id)

    def demand(self, job: Job, fence: FenceRequest, now: float) -> None:
        """Raise `FenceRefused` unless `fence` belongs to the current lease."""
        if job.status != "claimed":
            raise FenceRefused(f"job {job.id} is {job.status}")
        if (fence.worker_id, fence.attempt) != (job.claimed_by, job.attempt):
            raise FenceRefused(f"job {job.id} is at attempt {job.attempt}, held by another worker or attempt")
        if job.expires_at is not None and job.expires_at <= now:
            raise FenceRefused(f"the lease on job {job.id} has run out")

    def expired(self, now: float) -> list[Job]:
        return self._database.all(Job, "SELECT * FROM jobs WHERE status = 'claimed' AND expires_at <= ?", now)

    def settle(self, job: Job, report: CompleteRequest) -> None:
        """Store a report, because the worker may send it again."""
        statement = "INSERT INTO reports (job_id, attempt, report) VALUES (?, ?, ?)"
        self._database.execute(statement, job.id, report.attempt, _digest(report))

    def is_settled_by(self, job: Job, report: CompleteRequest) -> bool:
        """True if exactly this report was accepted before."""
        statement = "SELECT report FROM reports WHERE job_id = ? AND attempt = ?"
        return self._database.value(statement, job.id, report.attempt) == _digest(report)


def _choice(names: tuple[str, ...] | None) -> str | None:
    """Return the names as a JSON list; None means any name."""
    return msgspec.json.encode(names).decode() if names else None


def _digest(report: CompleteRequest) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(report), digest_size=16).digest()
