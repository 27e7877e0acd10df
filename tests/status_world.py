"""A status to start from, and a steering that shows it and remembers what it was asked for."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from supervisor.control.operator import CommandRejected
from supervisor.status import ClaimStatus, CodeStatus, JobStatus, Recent, SlotStatus, SpoolStatus, Status

JOB = JobStatus(
    job_id="job_1",
    run_id="run_1",
    action="resize",
    attempt=2,
    queue="default",
    elapsed=12.0,
    timeout=60.0,
    memory_limit=2**30,
    cpu_seconds=11.5,
    memory=2**20,
    lease_left=20.0,
    lease_length=30.0,
    progress=None,
    last_line="half of it",
    stopping=None,
)
IDLE = SlotStatus(slot=1, pid=11, state="idle", jobs=3, job=None, memory=2**20)
BUSY = SlotStatus(slot=2, pid=12, state="busy", jobs=1, job=JOB, memory=2**20)
ENDED = Recent(
    job_id="job_0", action="resize", attempt=1, outcome="failed", message="ValueError: no", seconds=3.0, ended_at=990.0
)
CLAIMS = ClaimStatus(open_polls=1, reason=None, last_answer_age=1.0, last_job_age=12.0)
STATUS = Status(
    version="1.2.3",
    worker_id="render-07",
    project="acme",
    base_url="https://mobius.test",
    pid=10,
    now=1000.0,
    started_at=900.0,
    state="serving",
    loop_lag=0.01,
    claims=CLAIMS,
    code=CodeStatus(generation=1, loaded_at=900.0, actions=("resize",), problems=(), error=None),
    slots=(IDLE, BUSY),
    recent=(ENDED,),
    spool=SpoolStatus(),
    quarantined=(),
)


def status(**changes: Any) -> Status:
    return replace(STATUS, **changes)


class Steered:
    """Implements `steering.Steering`; of jobs it has "job_1" only."""

    def __init__(self) -> None:
        self.shown = STATUS
        self.asked: list[tuple[str, str]] = []

    async def status(self) -> Status:
        return self.shown

    def glance(self) -> Status:
        return self.shown

    async def stack(self, job_id: str) -> str:
        self._require(job_id)
        return 'File "resize.py", line 3 in resize'

    def cancel(self, job_id: str, by: str) -> None:
        self._require(job_id)
        self.asked.append((f"cancel {job_id}", by))

    def pause(self, by: str) -> None:
        self.asked.append(("pause", by))

    def resume(self, by: str) -> None:
        self.asked.append(("resume", by))

    def drain(self, by: str) -> None:
        self.asked.append(("drain", by))

    async def reload(self, by: str) -> None:
        self.asked.append(("reload", by))
        raise CommandRejected("resize.py:3: SyntaxError")

    def _require(self, job_id: str) -> None:
        if job_id != "job_1":
            raise CommandRejected(f"no job {job_id!r} runs here")
