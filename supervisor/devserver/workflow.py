"""Progress of a run: steps, retries and its end.  The store handles leases.

Each method runs inside a transaction of the store.  A run has one path, so at most one of its jobs is open.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import msgspec

from supervisor.devserver.database import Database
from supervisor.devserver.errors import DeadReference
from supervisor.devserver.history import History
from supervisor.devserver.records import Job, Run
from supervisor.devserver.retry import retry_delay
from supervisor.devserver.spec import Spec, Step, outputs_of, parameters_of

RUN_CANCELLED = "run_cancelled"
LIVENESS_TIMEOUT = "liveness_timeout"


class Workflow:
    """Progress of the runs of one database."""

    def __init__(
        self, database: Database, history: History, *, new_id: Callable[[str], str], jitter: Callable[[], float]
    ) -> None:
        self._database = database
        self._history = history
        self._new_id = new_id
        self._jitter = jitter

    def begin(self, run: Run, now: float) -> None:
        """Start the first step of a new run."""
        spec = spec_of(run)
        self._enter(run, spec.first(), now)

    def advance(self, job: Job, result: bytes | None, now: float) -> None:
        """Store the result of a completed job, then start the next step or end the run."""
        run = self._end_job(job, "completed", None, None, result, now)
        if run.cancel_requested_at is not None:
            return self.fail(run, RUN_CANCELLED, "the run was cancelled", now)
        spec = spec_of(run)
        run = self._keep_result(run, spec.step(job.step_name), result, now)
        following = spec.after(job.step_name)
        if following is None:
            return self._finish(run, spec, result, now)
        return self._enter(run, following, now)

    def fall_back(self, job: Job, error_type: str | None, message: str | None, now: float) -> None:
        """Handle a reported failure: retry by the step's policies, or fail the run."""
        run = self.run_of(job)
        policies = spec_of(run).step(job.step_name).retry
        delay = retry_delay(policies, error_type, job.attempt, self._jitter)
        self._retry_or_fail(job, run, error_type, message, delay, now)

    def time_out(self, job: Job, now: float) -> None:
        """Handle an expired lease: retry at once while attempts are left, or fail the run."""
        delay = 0.0 if job.attempt < job.max_attempts else None
        message = f"worker {job.claimed_by} was silent for too long"
        self._retry_or_fail(job, self.run_of(job), LIVENESS_TIMEOUT, message, delay, now)

    def drop(self, job: Job, now: float) -> None:
        """End an open job because its run is cancelled."""
        run = self._end_job(job, "failed", RUN_CANCELLED, "the run was cancelled", None, now)
        self.fail(run, RUN_CANCELLED, "the run was cancelled", now)

    def fail(self, run: Run, error_type: str, message: str, now: float) -> None:
        statement = (
            "UPDATE runs SET status = 'failed', error_type = ?, error_message = ?, completed_at = ?, updated_at = ?"
            " WHERE id = ? RETURNING *"
        )
        self._record_update(self._database.one(Run, statement, error_type, message, now, now, run.id), None, now)

    def run_of(self, job: Job) -> Run:
        run = self._database.one(Run, "SELECT * FROM runs WHERE id = ?", job.run_id)
        assert run is not None
        return run

    def _enter(self, run: Run, step: Step, now: float) -> None:
        inputs, state = msgspec.json.decode(run.inputs), msgspec.json.decode(run.state)
        try:
            parameters = parameters_of(step, inputs, state)
        except DeadReference as error:
            return self.fail(run, "run_failed", f"step {step.name}: {error}", now)
        job = self._add_job(run, step, parameters, now)
        self._history.job_updated(job, now)
        return self._history.run_updated(run, job, now)

    def _add_job(self, run: Run, step: Step, parameters: dict[str, Any], now: float) -> Job:
        statement = (
            "INSERT INTO jobs (id, project, run_id, step_name, action, queue, parameters, status, attempt,"
            " max_attempts, scheduled_at, created_at, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 'pending', 1, ?, ?, ?, ?) RETURNING *"
        )
        place = (self._new_id("job"), run.project, run.id, step.name, step.action, run.queue)
        encoded = msgspec.json.encode(parameters)
        job = self._database.one(Job, statement, *place, encoded, step.max_attempts, now, now, now)
        assert job is not None
        return job

    def _retry_or_fail(
        self, job: Job, run: Run, error_type: str | None, message: str | None, delay: float | None, now: float
    ) -> None:
        if run.cancel_requested_at is not None:
            self._end_job(job, "failed", error_type, message, None, now)
            self.fail(run, RUN_CANCELLED, "the run was cancelled", now)
        elif delay is None:
            self._end_job(job, "failed", error_type, message, None, now)
            self.fail(run, "job_failed", f"step {job.step_name}: {error_type}: {message}", now)
        else:
            self._schedule_again(job, run, error_type, message, now + delay, now)

    def _schedule_again(
        self, job: Job, run: Run, error_type: str | None, message: str | None, at: float, now: float
    ) -> None:
        statement = (
            "UPDATE jobs SET status = 'pending', attempt = attempt + 1, scheduled_at = ?, claimed_by = NULL,"
            " claimed_at = NULL, heartbeat_at = NULL, expires_at = NULL, error_type = ?, last_error = ?,"
            " updated_at = ? WHERE id = ? RETURNING *"
        )
        again = self._database.one(Job, statement, at, error_type, message, now, job.id)
        assert again is not None
        self._history.job_updated(again, now)
        self._history.run_updated(run, again, now)

    def _end_job(
        self, job: Job, status: str, error_type: str | None, message: str | None, result: bytes | None, now: float
    ) -> Run:
        statement = (
            "UPDATE jobs SET status = ?, error_type = ?, last_error = coalesce(?, last_error), result = ?,"
            " expires_at = NULL, updated_at = ? WHERE id = ? RETURNING *"
        )
        ended = self._database.one(Job, statement, status, error_type, message, result, now, job.id)
        assert ended is not None
        self._history.job_updated(ended, now)
        return self.run_of(job)

    def _keep_result(self, run: Run, step: Step, result: bytes | None, now: float) -> Run:
        if step.variable is None:
            return run
        state = msgspec.json.decode(run.state) | {step.variable: _decoded(result)}
        statement = "UPDATE runs SET state = ?, updated_at = ? WHERE id = ? RETURNING *"
        return self._database.one(Run, statement, msgspec.json.encode(state), now, run.id) or run

    def _finish(self, run: Run, spec: Spec, result: bytes | None, now: float) -> None:
        try:
            outputs = msgspec.json.encode(outputs_of(spec, msgspec.json.decode(run.state))) if spec.outputs else result
        except DeadReference as error:
            return self.fail(run, "run_failed", f"outputs: {error}", now)
        statement = (
            "UPDATE runs SET status = 'completed', result = ?, completed_at = ?, updated_at = ?"
            " WHERE id = ? RETURNING *"
        )
        return self._record_update(self._database.one(Run, statement, outputs, now, now, run.id), None, now)

    def _record_update(self, run: Run | None, open_job: Job | None, now: float) -> None:
        assert run is not None
        self._history.run_updated(run, open_job, now)


def spec_of(run: Run) -> Spec:
    return msgspec.json.decode(run.spec, type=Spec)


def _decoded(result: bytes | None) -> Any:
    """Return a result for the state: decoded JSON, or base64 text for other bytes."""
    try:
        return None if result is None else msgspec.json.decode(result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return base64.b64encode(result or b"").decode()
