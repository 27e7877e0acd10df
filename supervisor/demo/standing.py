"""How a job of the demo stands, as the server knows it."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.demo.jobs import DemoJob
from supervisor.devserver.app import DevServer
from supervisor.devserver.workflow import RUN_CANCELLED
from supervisor.devserver.records import Job, Run

ENDED = frozenset({"completed", "cancelled", "failed"})


@dataclass(frozen=True, slots=True)
class JobState:
    """One look at one job; `part` is how much of the work is done, None where its handler does not say."""

    job: DemoJob
    status: str
    attempt: int
    part: float | None
    seconds: float | None
    said: str = ""

    @property
    def is_ended(self) -> bool:
        return self.status in ENDED

    @property
    def is_right(self) -> bool:
        """Whether it ended as it should."""
        return (self.status, self.attempt) == (self.job.status, self.job.attempts)


def look(server: DevServer, demo_job: DemoJob, run_id: str, now: float) -> JobState:
    """How a job stands at `now`; one that has ended says what came out."""
    run, job = server.run(run_id), server.jobs(run_id)[-1]
    status = _status(run, job)
    seconds = None if run.started_at is None else (run.completed_at or now) - run.started_at
    said = _said(demo_job, status, run, job) if status in ENDED else ""
    return JobState(demo_job, status, job.attempt, _part(server, run), seconds, said)


def _status(run: Run, job: Job) -> str:
    if run.status == "failed":
        # A worker's own word for it: the server may drop a job that nobody ran as well.
        return "cancelled" if run.error_type == RUN_CANCELLED and job.error_type == "Cancelled" else "failed"
    if run.status == "completed":
        return "completed"
    if run.cancel_requested_at is not None:
        return "stopping"
    if job.status == "claimed":
        return "running"
    return "waiting" if job.attempt == 1 else "retry soon"


def _part(server: DevServer, run: Run) -> float | None:
    if run.status == "completed":
        return 1.0
    told = [event["data"] for event in server.events(run.id) if event["type"] == "progress"]
    if not told or not told[-1].get("total"):
        return None
    return min(1.0, float(told[-1]["done"] / told[-1]["total"]))


def _said(demo_job: DemoJob, status: str, run: Run, job: Job) -> str:
    if status == "completed":
        return demo_job.describe(run.result or b"")
    if status == "cancelled" and run.completed_at is not None and run.cancel_requested_at is not None:
        return f"dead {run.completed_at - run.cancel_requested_at:.2f} s after the cancel"
    return (job.last_error or run.error_message or "").partition("\n")[0]
