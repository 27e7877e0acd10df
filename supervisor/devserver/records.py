"""Records of the store: one struct per table, with fields in the order of the columns.  Pure.

Times are epoch seconds.  JSON values stay encoded as bytes until they are needed.  Tested by
tests/devserver/test_store.py.
"""

from __future__ import annotations

from typing import Literal

import msgspec

JobStatus = Literal["pending", "claimed", "completed", "failed"]
RunStatus = Literal["active", "completed", "failed"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, project TEXT NOT NULL, workflow_name TEXT NOT NULL,
    status TEXT NOT NULL, queue TEXT NOT NULL, spec BLOB NOT NULL, inputs BLOB NOT NULL, state BLOB NOT NULL,
    metadata BLOB, tags BLOB, external_id TEXT, error_type TEXT, error_message TEXT, result BLOB,
    cancel_requested_at REAL, created_at REAL NOT NULL, started_at REAL, completed_at REAL, updated_at REAL NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS runs_external ON runs (project, external_id) WHERE external_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, project TEXT NOT NULL, run_id TEXT NOT NULL,
    step_name TEXT NOT NULL, action TEXT NOT NULL, queue TEXT NOT NULL, parameters BLOB NOT NULL,
    status TEXT NOT NULL, attempt INTEGER NOT NULL, max_attempts INTEGER NOT NULL, scheduled_at REAL NOT NULL,
    claimed_by TEXT, claimed_at REAL, heartbeat_at REAL, expires_at REAL,
    last_error TEXT, error_type TEXT, result BLOB, created_at REAL NOT NULL, updated_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_of_run ON jobs (run_id);
CREATE INDEX IF NOT EXISTS jobs_to_claim ON jobs (project, scheduled_at, number) WHERE status = 'pending';
CREATE INDEX IF NOT EXISTS jobs_to_wake ON jobs (scheduled_at) WHERE status = 'pending';
CREATE INDEX IF NOT EXISTS jobs_to_expire ON jobs (expires_at) WHERE status = 'claimed';

CREATE TABLE IF NOT EXISTS reports (
    job_id TEXT NOT NULL, attempt INTEGER NOT NULL, report BLOB NOT NULL,
    PRIMARY KEY (job_id, attempt)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, project TEXT NOT NULL, run_id TEXT NOT NULL,
    type TEXT NOT NULL, timestamp REAL NOT NULL, data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS events_of_run ON events (run_id, seq);

CREATE TABLE IF NOT EXISTS sessions (
    project TEXT NOT NULL, id TEXT NOT NULL, name TEXT, version TEXT, last_seen_at REAL NOT NULL,
    PRIMARY KEY (project, id)
) WITHOUT ROWID;
"""


class Run(msgspec.Struct, frozen=True):
    """One execution of a spec."""

    number: int
    id: str
    project: str
    workflow_name: str
    status: RunStatus
    queue: str
    spec: bytes
    inputs: bytes
    state: bytes
    metadata: bytes | None
    tags: bytes | None
    external_id: str | None
    error_type: str | None
    error_message: str | None
    result: bytes | None
    cancel_requested_at: float | None
    created_at: float
    started_at: float | None
    completed_at: float | None
    updated_at: float

    def __str__(self) -> str:
        return f"<Run {self.id} {self.status}{f' {self.error_type}' if self.error_type else ''}>"


class Job(msgspec.Struct, frozen=True):
    """The work of one step.  `attempt` counts from 1; `expires_at` is the end of the lease of a claimed job."""

    number: int
    id: str
    project: str
    run_id: str
    step_name: str
    action: str
    queue: str
    parameters: bytes
    status: JobStatus
    attempt: int
    max_attempts: int
    scheduled_at: float
    claimed_by: str | None
    claimed_at: float | None
    heartbeat_at: float | None
    expires_at: float | None
    last_error: str | None
    error_type: str | None
    result: bytes | None
    created_at: float
    updated_at: float

    def __str__(self) -> str:
        by = f" by {self.claimed_by}" if self.claimed_by else ""
        error = f" {self.error_type}: {self.last_error}" if self.error_type else ""
        return f"<Job {self.id} {self.action} {self.status} attempt {self.attempt} of {self.max_attempts}{by}{error}>"


class StoredEvent(msgspec.Struct, frozen=True):
    """One event of a run's history; `seq` increases over all runs, `data` is a JSON object."""

    seq: int
    project: str
    run_id: str
    type: str
    timestamp: float
    data: bytes


class Session(msgspec.Struct, frozen=True):
    """A worker that has claimed jobs."""

    project: str
    id: str
    name: str | None
    version: str | None
    last_seen_at: float
