"""The jobs of the demo, with their expected outcomes and descriptions of their results.

Tested by tests/demo/test_program.py.
"""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.devserver.app import DevServer
from supervisor.devserver.records import Job, Run
from supervisor.devserver.workflow import RUN_CANCELLED


@dataclass(frozen=True, slots=True)
class DemoJob:
    """A run of one step; `describe` makes one line of its result, `cancelled` means that the demo cancels it."""

    title: str
    action: str
    parameters: Mapping[str, Any]
    describe: Callable[[bytes], str] = field(repr=False)
    text: str = field(default="", repr=False)
    retries: int = 0
    cancelled: bool = False

    @property
    def status(self) -> str:
        """Expected final status."""
        return "cancelled" if self.cancelled else "completed"

    @property
    def attempts(self) -> int:
        """Expected number of attempts."""
        return 1 + self.retries

    @property
    def spec(self) -> dict[str, Any]:
        """Workflow spec for the server."""
        retry = [{"error_equals": ["Unlucky"], "max_retries": self.retries, "base_delay": "500ms"}]
        step = {"name": self.action, "action": self.action, "parameters": dict(self.parameters)}
        return {"name": self.title, "steps": [{**step, "retry": retry if self.retries else []}]}

    @property
    def inputs(self) -> dict[str, str]:
        """Inputs of the run: the text may contain what looks like a reference, which only inputs keep unchanged."""
        return {"text": self.text} if self.text else {}


def demo_jobs(picture: Path, *, quick: bool) -> list[DemoJob]:
    """The jobs in the order in which they are submitted; the first one's image is written to `picture`."""
    width, height = (240, 160) if quick else (1280, 800)
    below = 50_000 if quick else 1_500_000
    digits = 1_000 if quick else 10_000
    product = 1_000_003 * 2_000_003 if quick else 30_000_001 * 40_000_003
    text = {"text": "${inputs.text}"}
    size = {"width": width, "height": height}
    return [
        DemoJob(f"mandelbrot {width}×{height}", "mandelbrot", size, lambda result: _save(result, picture)),
        DemoJob(
            "a C call of minutes", "derive-key", {"password": "x", "rounds": 2**31 - 1}, lambda _: "", cancelled=True
        ),
        DemoJob("fails twice, retried", "flaky", {"succeed_on": 3}, _describe_luck, retries=2),
        DemoJob("words of the stdlib", "word-statistics", text, _describe_words, text=_library(quick=quick)),
        DemoJob(f"primes to {below:,}", "count-primes", {"below": below}, _describe_primes),
        DemoJob(f"{digits:,} digits of pi", "digits-of-pi", {"count": digits}, _describe_digits),
        DemoJob("factor a big number", "factorize", {"number": product}, _describe_factors),
    ]


def _library(*, quick: bool) -> str:
    """A large text that is on every machine: the sources of Python's own library."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return "\n".join(file.read_text(errors="replace") for file in files[: 10 if quick else None])


def _save(result: bytes, picture: Path) -> str:
    picture.write_bytes(result)
    return f"a PNG of {len(result) // 1024} KiB"


def _describe_luck(result: bytes) -> str:
    return f"succeeded at attempt {json.loads(result)['attempt']}"


def _describe_words(result: bytes) -> str:
    counted = json.loads(result)
    return f"{counted['words']:,} words, most: {counted['top'][0]['word']}"


def _describe_primes(result: bytes) -> str:
    return f"{json.loads(result)['primes']:,} primes"


def _describe_digits(result: bytes) -> str:
    digits = json.loads(result)
    return f"{digits[0]}.{digits[1:8]}…{digits[-8:]}"


def _describe_factors(result: bytes) -> str:
    return " × ".join(map(str, json.loads(result)))


ENDED = frozenset({"completed", "cancelled", "failed"})


@dataclass(frozen=True, slots=True)
class JobState:
    """Snapshot of a job; `part` is the finished fraction, None without progress events."""

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
        """True if the job ended as expected."""
        return (self.status, self.attempt) == (self.job.status, self.job.attempts)


def look(server: DevServer, demo_job: DemoJob, run_id: str, now: float) -> JobState:
    """Return the state of a job at `now`, with a description of its result after the end."""
    run, job = server.run(run_id), server.jobs(run_id)[-1]
    status = _status(run, job)
    seconds = None if run.started_at is None else (run.completed_at or now) - run.started_at
    said = _said(demo_job, status, run, job) if status in ENDED else ""
    return JobState(demo_job, status, job.attempt, _part(server, run), seconds, said)


def _status(run: Run, job: Job) -> str:
    if run.status == "failed":
        # The worker must have reported "Cancelled": the server also cancels a job that no worker ran.
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
    progress = [event["data"] for event in server.events(run.id) if event["type"] == "progress"]
    if not progress or not progress[-1].get("total"):
        return None
    return min(1.0, float(progress[-1]["done"] / progress[-1]["total"]))


def _said(demo_job: DemoJob, status: str, run: Run, job: Job) -> str:
    if status == "completed":
        return demo_job.describe(run.result or b"")
    if status == "cancelled" and run.completed_at is not None and run.cancel_requested_at is not None:
        return f"dead {run.completed_at - run.cancel_requested_at:.2f} s after the cancel"
    return (job.last_error or run.error_message or "").partition("\n")[0]
