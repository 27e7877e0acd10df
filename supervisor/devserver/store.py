"""Runs, jobs, leases, events and workers' sessions, in SQLite.

No asyncio, no HTTP and no clock: time is an argument, in epoch seconds.  Each method is one transaction, so a
reader that sees an event also sees the change behind it.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from supervisor.devserver.database import Database
from supervisor.devserver.errors import Unknown
from supervisor.devserver.history import History
from supervisor.devserver.leases import Leases
from supervisor.devserver.records import Job, Run, Session, StoredEvent
from supervisor.devserver.requests import (
    ClaimRequest,
    CompleteRequest,
    EventEntry,
    FenceRequest,
    RunFilter,
    RunRequest,
)
from supervisor.devserver.spec import check, with_defaults
from supervisor.devserver.workflow import Workflow

DEFAULT_QUEUE = "default"


def random_id(kind: str) -> str:
    """Return a new id for a `run` or a `job`."""
    return f"{kind}_{secrets.token_hex(8)}"


class Store:
    """The data of the server.

    Methods with the id of a job or run raise `Unknown`; methods with a fence raise `FenceRefused`.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        lease_ttl: float = 30.0,
        immediate_cancellation: bool = False,
        new_id: Callable[[str], str] = random_id,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._database = Database(path)
        self._history = History(self._database)
        self._leases = Leases(self._database, ttl=lease_ttl)
        self._flow = Workflow(self._database, self._history, new_id=new_id, jitter=jitter)
        self._immediate_cancellation = immediate_cancellation
        self._new_id = new_id

    def close(self) -> None:
        self._database.close()

    def start_run(self, project: str, request: RunRequest, now: float) -> Run:
        """Store a run and its first job, or return the existing run with this `external_id`.

        Raises `Invalid` when the spec cannot be run.
        """
        check(request.spec)
        inputs = with_defaults(request.spec, request.inputs)
        with self._database.transaction():
            earlier = self._run_by_external_id(project, request.external_id)
            if earlier is not None:
                return earlier
            run = self._add_run(project, request, msgspec.json.encode(inputs), now)
            self._flow.begin(run, now)
            return self.run(project, run.id)

    def claim(self, project: str, request: ClaimRequest, now: float) -> Job | None:
        """Lease the oldest matching job to the worker."""
        with self._database.transaction():
            job = self._leases.grant(project, request, now)
            if job is not None:
                self._note_start(job, now)
            return job

    def release(self, job: Job, now: float) -> None:
        """Take back a lease that did not reach its worker; the attempt does not count."""
        with self._database.transaction():
            free = self._leases.release(job, now)
            if free is None:
                return
            run = self._flow.run_of(free)
            if run.cancel_requested_at is not None:
                self._flow.drop(free, now)
            else:
                self._history.job_updated(free, now)
                self._history.run_updated(run, free, now)

    def heartbeat(self, project: str, job_id: str, fence: FenceRequest, now: float) -> bool:
        """Renew a lease; True when its run was cancelled and the worker should stop."""
        with self._database.transaction():
            job = self._fenced(project, job_id, fence, now)
            self._leases.renew(job, now)
            return self._flow.run_of(job).cancel_requested_at is not None

    def publish(self, project: str, job_id: str, fence: FenceRequest, events: Sequence[EventEntry], now: float) -> None:
        """Append events of a worker to the history."""
        with self._database.transaction():
            job = self._fenced(project, job_id, fence, now)
            for event in events:
                self._history.custom(job, event.type, event.payload, now)

    def complete(self, project: str, job_id: str, report: CompleteRequest, now: float) -> None:
        """Record the outcome of an attempt; the same report again is accepted without effect."""
        with self._database.transaction():
            if self._leases.is_settled_by(self.job(project, job_id), report):
                return
            job = self._fenced(project, job_id, report, now)
            self._leases.settle(job, report)
            if report.status == "completed":
                self._flow.advance(job, report.result_b64, now)
            else:
                self._flow.fall_back(job, report.error_type, report.error_message, now)

    def cancel(self, project: str, run_id: str, now: float) -> None:
        """Ask a run to stop: a pending job ends at once, a claimed one when its worker reports.

        Idempotent; without effect on a run that has ended.
        """
        with self._database.transaction():
            run = self.run(project, run_id)
            job = self.open_job(run_id)
            if job is None or run.cancel_requested_at is not None:
                return
            run = self._note_cancellation(run, now)
            if job.status == "pending" or self._immediate_cancellation:
                self._flow.drop(job, now)
            else:
                self._history.run_updated(run, job, now)

    def expire(self, now: float) -> bool:
        """End the expired leases; return True if there were any."""
        with self._database.transaction():
            expired = self._leases.expired(now)
            for job in expired:
                self._flow.time_out(job, now)
        return bool(expired)

    def let_run_out(self, job_id: str, now: float) -> None:
        """End a job's lease early; without effect on a job that is not claimed."""
        with self._database.transaction():
            job = self.job(None, job_id)
            if job.status == "claimed":
                self._flow.time_out(job, now)

    def next_wake_at(self, since: float) -> float | None:
        """Return the time at which the next lease expires or the next backoff after `since` ends."""
        lapse = "SELECT min(expires_at) FROM jobs WHERE status = 'claimed'"
        ready = "SELECT min(scheduled_at) FROM jobs WHERE status = 'pending' AND scheduled_at > ?"
        moments = (self._database.value(lapse), self._database.value(ready, since))
        return min((moment for moment in moments if isinstance(moment, float)), default=None)

    def note_worker(self, project: str, request: ClaimRequest, now: float) -> None:
        """Record that a worker claimed jobs."""
        statement = "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)"
        worker = (request.worker_id, request.worker_name, request.worker_version)
        self._database.execute(statement, project, *worker, now)

    def projects(self) -> set[str]:
        """All projects that have runs or workers."""
        statement = (
            "SELECT json_group_array(project) FROM (SELECT project FROM runs UNION SELECT project FROM sessions)"
        )
        names = self._database.value(statement)
        return set(msgspec.json.decode(names, type=list[str])) if isinstance(names, str) else set()

    def latest(self, limit: int) -> list[Run | Job]:
        """Return the newest runs, each followed by its jobs, for messages."""
        runs = self._database.all(Run, "SELECT * FROM runs ORDER BY number DESC LIMIT ?", limit)
        records: list[Run | Job] = []
        for run in runs:
            records += [run, *self.jobs(run.id)]
        return records

    def sessions(self, project: str) -> list[Session]:
        return self._database.all(Session, "SELECT * FROM sessions WHERE project = ? ORDER BY id", project)

    def run(self, project: str | None, run_id: str) -> Run:
        """`project` None looks in all of them, for ids are unique."""
        statement = "SELECT * FROM runs WHERE id = :id AND (:project IS NULL OR project = :project)"
        run = self._database.one(Run, statement, id=run_id, project=project)
        if run is None:
            raise Unknown(f"there is no run {run_id!r}")
        return run

    def runs(self, project: str, chosen: RunFilter) -> list[Run]:
        """The project's runs, newest first, from below `cursor` (a run's number), one more than `limit`."""
        statement = (
            "SELECT * FROM runs WHERE project = :project AND (:status IS NULL OR status = :status)"
            " AND (:workflow_type IS NULL OR workflow_name = :workflow_type) AND (:queue IS NULL OR queue = :queue)"
            " AND (:external_id IS NULL OR external_id = :external_id) AND (:cursor IS NULL OR number < :cursor)"
            " ORDER BY number DESC LIMIT :limit"
        )
        wanted = msgspec.structs.asdict(chosen) | {"limit": chosen.limit + 1}
        return self._database.all(Run, statement, project=project, **wanted)

    def job(self, project: str | None, job_id: str) -> Job:
        """`project` None looks in all of them, for ids are unique."""
        statement = "SELECT * FROM jobs WHERE id = :id AND (:project IS NULL OR project = :project)"
        job = self._database.one(Job, statement, id=job_id, project=project)
        if job is None:
            raise Unknown(f"there is no job {job_id!r}")
        return job

    def jobs(self, run_id: str) -> list[Job]:
        """A run's jobs, oldest first."""
        return self._database.all(Job, "SELECT * FROM jobs WHERE run_id = ? ORDER BY number", run_id)

    def open_job(self, run_id: str) -> Job | None:
        """The one job of a run that is pending or claimed; None when the run has ended."""
        statement = "SELECT * FROM jobs WHERE run_id = ? AND status IN ('pending', 'claimed')"
        return self._database.one(Job, statement, run_id)

    def events_after(self, seq: int, *, project: str, run_id: str | None = None) -> list[StoredEvent]:
        """See `History.after`."""
        return self._history.after(seq, project=project, run_id=run_id)

    def events(self, run_id: str) -> list[StoredEvent]:
        """See `History.of_run`."""
        return self._history.of_run(run_id)

    def last_seq(self) -> int:
        """See `History.last_seq`."""
        return self._history.last_seq()

    def _fenced(self, project: str, job_id: str, fence: FenceRequest, now: float) -> Job:
        job = self.job(project, job_id)
        self._leases.demand(job, fence, now)
        return job

    def _run_by_external_id(self, project: str, external_id: str | None) -> Run | None:
        if external_id is None:
            return None
        statement = "SELECT * FROM runs WHERE project = ? AND external_id = ?"
        return self._database.one(Run, statement, project, external_id)

    def _add_run(self, project: str, request: RunRequest, inputs: bytes, now: float) -> Run:
        statement = (
            "INSERT INTO runs (id, project, workflow_name, status, queue, spec, inputs, state, metadata, tags,"
            " external_id, created_at, updated_at) VALUES (?, ?, ?, 'active', ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *"
        )
        spec, queue = request.spec, request.queue or DEFAULT_QUEUE
        place = (self._new_id("run"), project, spec.name, queue)
        content = (msgspec.json.encode(spec), inputs, msgspec.json.encode(spec.state))
        labels = (_encoded(request.metadata), _encoded(request.tags), request.external_id)
        run = self._database.one(Run, statement, *place, *content, *labels, now, now)
        assert run is not None
        return run

    def _note_start(self, job: Job, now: float) -> None:
        statement = "UPDATE runs SET started_at = coalesce(started_at, ?), updated_at = ? WHERE id = ? RETURNING *"
        run = self._database.one(Run, statement, now, now, job.run_id)
        assert run is not None
        self._history.job_updated(job, now)
        self._history.run_updated(run, job, now)

    def _note_cancellation(self, run: Run, now: float) -> Run:
        statement = "UPDATE runs SET cancel_requested_at = ?, updated_at = ? WHERE id = ? RETURNING *"
        return self._database.one(Run, statement, now, now, run.id) or run


def _encoded(labels: dict[str, str] | None) -> bytes | None:
    return None if labels is None else msgspec.json.encode(labels)
