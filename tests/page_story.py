"""What the page has to show: a worker in the middle of its work, with as many slots as wanted; some of it hostile."""

from __future__ import annotations

from typing import Any

import msgspec

from supervisor.status import ClaimStatus, CodeStatus, JobStatus, Recent, SlotStatus, SpoolStatus, Status

NOW = 1_790_000_000.0
HOSTILE = (
    "\"'><img src=https://example.com/x onerror=alert(1)><script>document.title='taken'</script></main>"
    "\x1b[31m\u202e{{body}}"
)
LONG = "x" * 65536

# Action, elapsed, timeout, progress, last line.
JOBS: tuple[tuple[str, float, float | None, dict[str, Any], str | None], ...] = (
    (
        "render_report",
        754.2,
        1800.0,
        {"done": 1530, "total": 2000, "message": "drawing the charts"},
        "page 1530: 4 figures",
    ),
    ("transcode", 3125.0, 3600.0, {"percent": 86.5, "frame": 155_700}, "frame=155700 fps= 49 q=28.0 size=  411648kB"),
    (
        "summarize",
        3.4,
        600.0,
        {"page": 3, "pages": 12},
        "gist of page 3: the quarterly figures, in the order of the regions",
    ),
    ("train_model", 93_784.0, None, {"done": 41, "total": 120, "message": "epoch 41"}, "INFO epoch 41 loss=0.0183"),
    ("import_customers", 62.0, 300.0, {"done": 12_400}, None),
    ("mandelbrot", 291.0, 300.0, {"done": 799, "total": 800}, "row 799"),
)


def job(number: int, **changes: object) -> JobStatus:
    """One of six sorts of jobs, in turn."""
    sort = number % len(JOBS)
    action, elapsed, timeout, progress, line = JOBS[sort]
    made = JobStatus(
        job_id=f"job_01k6ym{number:04}qz7d",
        run_id=f"run_01k6yh{number:04}",
        action=action,
        attempt=1 + number % 3 // 2,
        queue="default",
        elapsed=elapsed,
        timeout=timeout,
        memory_limit=None if sort == 4 else 2 << 30,
        cpu_seconds=elapsed * (5.7 if sort == 3 else 0.97),
        memory=(180 + 331 * sort) << 20,
        lease_left=(28.4, 24.9, 7.9, 22.0, 29.5, 2.1)[sort],
        lease_length=30.0,
        progress=msgspec.Raw(msgspec.json.encode(progress)),
        last_line=line,
        stopping="the server asked to stop the job" if sort == 5 else None,
    )
    return msgspec.structs.replace(made, **changes)


def slot(number: int, job: JobStatus | None) -> SlotStatus:
    return SlotStatus(slot=number, pid=4711 + number, state="busy" if job else "idle", jobs=40 + number, job=job)


def status(count: int = 8, **changes: object) -> Status:
    """A worker with `count` slots; every fourth is idle, but for the first of these."""
    made = Status(
        version="0.1.0",
        worker_id="worker-eu-3",
        project="acme",
        base_url="https://api.example.com",
        pid=4700,
        now=NOW,
        started_at=NOW - 273_900,
        state="serving",
        loop_lag=0.0021,
        claims=ClaimStatus(open_polls=2, reason=None, last_answer_age=1.2, last_job_age=8.0),
        code=CodeStatus(generation=3, loaded_at=NOW - 7000, actions=("primes", "words"), problems=(), error=None),
        slots=tuple(slot(number, job(number) if number % 4 != 3 or number == 3 else None) for number in range(count)),
        recent=RECENT,
        spool=SpoolStatus(items=0, bytes=0, oldest_age=None),
        quarantined=(),
    )
    return msgspec.structs.replace(made, **changes)


def troubled() -> Status:
    """Everything that can be wrong at once."""
    error = (
        "Traceback (most recent call last):\n  File \"handlers/primes.py\", line 7\nSyntaxError: '(' was never closed"
    )
    problems = ("handlers/words.py: the handler has no docstring",)
    paused = ClaimStatus(open_polls=0, reason="paused by root (uid 0)", last_answer_age=312.0, last_job_age=330.0)
    return status(
        state="paused",
        loop_lag=0.734,
        claims=paused,
        code=CodeStatus(generation=3, loaded_at=NOW - 7000, actions=("primes",), problems=problems, error=error),
        spool=SpoolStatus(items=3, bytes=48_213, oldest_age=290.0),
        quarantined=("job_01k6ym0001qz7d", "handler crash_often"),
    )


def hostile() -> Status:
    """A worker, two jobs and an outcome whose every text means to break the page."""
    said = msgspec.Raw(msgspec.json.encode({"message": HOSTILE, HOSTILE: LONG[:9000]}))
    worst = job(0, job_id=HOSTILE, action=HOSTILE, last_line=HOSTILE + LONG, progress=said)
    longest = job(1, job_id=LONG, action=LONG, last_line=LONG, stopping=LONG)
    end = ended(0, "failed", f"{HOSTILE}\n{LONG}", 1.0, 0.0)
    return status(
        slots=(slot(0, worst), slot(1, longest)),
        recent=(msgspec.structs.replace(end, job_id=HOSTILE, action=LONG),),
        worker_id=HOSTILE,
        quarantined=(HOSTILE, LONG),
    )


def ended(number: int, outcome: str, message: str | None, seconds: float, age: float) -> Recent:
    return Recent(
        job_id=f"job_01k6yk{number:04}rr2c",
        action=JOBS[number % len(JOBS)][0],
        attempt=1 + number % 2,
        outcome=outcome,
        message=message,
        seconds=seconds,
        ended_at=NOW - age,
    )


_CRASH = 'ChildDied: the process was killed by SIGSEGV (peak memory 812 MiB)\nFile "handlers/train.py", line 41 in step'
RECENT = (
    ended(4, "completed", None, 271.0, 12),
    ended(1, "timeout", "Timeout: the handler ran longer than its timeout of 1h", 3602.0, 71),
    ended(2, "completed", None, 7.3, 95),
    ended(0, "cancelled", "the server asked to stop the job; it stopped when it was asked to", 33.2, 140),
    ended(3, "crashed", _CRASH, 52.9, 333),
    ended(5, "lease_lost", "the lease was given away after 30 s of silence", 120.0, 1200),
)
