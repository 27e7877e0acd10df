"""The ordered events of all runs, for subscribers.  Written in the transaction of each change.

Tested by tests/devserver/test_store.py.
"""

from __future__ import annotations

from typing import Any

import msgspec

from supervisor.devserver.database import Database
from supervisor.devserver.records import Job, Run, StoredEvent
from supervisor.devserver.views import job_summary, run_summary

_BATCH = 1000


class History:
    """Appends and reads events; the sequence numbers increase over all runs of all projects."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def run_updated(self, run: Run, open_job: Job | None, now: float) -> None:
        self._append(run.project, run.id, "run_updated", run_summary(run, open_job, now), now)

    def job_updated(self, job: Job, now: float) -> None:
        self._append(job.project, job.run_id, "job_updated", job_summary(job), now)

    def custom(self, job: Job, event_type: str, payload: dict[str, Any], now: float) -> None:
        data = {"kind": "custom", "type": event_type, "job_id": job.id, "data": payload}
        self._append(job.project, job.run_id, "custom", data, now)

    def after(self, seq: int, *, project: str, run_id: str | None = None) -> list[StoredEvent]:
        """Return at most a thousand events after `seq`, of one run or of the whole project."""
        if run_id is None:
            statement = "SELECT * FROM events WHERE project = ? AND seq > ? ORDER BY seq LIMIT ?"
            return self._database.all(StoredEvent, statement, project, seq, _BATCH)
        statement = "SELECT * FROM events WHERE run_id = ? AND seq > ? ORDER BY seq LIMIT ?"
        return self._database.all(StoredEvent, statement, run_id, seq, _BATCH)

    def of_run(self, run_id: str) -> list[StoredEvent]:
        """Return all events of one run."""
        return self._database.all(StoredEvent, "SELECT * FROM events WHERE run_id = ? ORDER BY seq", run_id)

    def last_seq(self) -> int:
        """Return the number of the last event; 0 without events."""
        newest = self._database.value("SELECT max(seq) FROM events")
        return newest if isinstance(newest, int) else 0

    def _append(self, project: str, run_id: str, kind: str, data: dict[str, Any], now: float) -> None:
        statement = "INSERT INTO events (project, run_id, type, timestamp, data) VALUES (?, ?, ?, ?, ?)"
        self._database.execute(statement, project, run_id, kind, now, msgspec.json.encode(data))
