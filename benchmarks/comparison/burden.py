"""What a worker costs that has nothing much to do: its start, its memory, its share of each job."""

from __future__ import annotations

import time

import psutil

from benchmarks.beacon import Beacon
from benchmarks.comparison.celery_pool import CeleryPool
from benchmarks.comparison.mobius import Mobius, Ours
from benchmarks.comparison.session import Session, until
from benchmarks.processes import MIB, share_of
from benchmarks.programs import job_server

WORKERS = 8
QUIET = 3.0
"""Seconds until all reports are sent and nothing moves any more."""


def start(session: Session, told: Beacon) -> dict[str, float | str]:
    """A job waits for the worker."""
    session.submit("tell", beacon=told.path)
    began = time.monotonic()
    session.start_worker(WORKERS)
    told.receive()
    return {"start of the program → its first job runs (s)": time.monotonic() - began}


def memory(session: Session, told: Beacon) -> dict[str, float | str]:
    """All processes together, after every slot has run something and all is quiet again."""
    session.start_worker(WORKERS, heavy=True)
    for _ in range(4 * WORKERS):
        session.submit("work", beacon=told.path, seconds=0.5)
    for _ in range(2 * 4 * WORKERS):
        told.receive()
    time.sleep(QUIET)
    whole = [session.worker.pid, *(each.pid for each in psutil.Process(session.worker.pid).children(recursive=True))]
    try:
        shared: float | str = sum(map(share_of, whole)) / MIB
    except PermissionError:  # our parent is not dumpable
        shared = "for root only"
    return {
        f"{WORKERS} idle slots, 100 MiB imported: memory (PSS, MiB)": shared,
        f"{WORKERS} idle slots: processes": float(len(whole)),
    }


def throughput(session: Session, _: Beacon) -> dict[str, float | str]:
    """Jobs that do nothing; those of Mobius come from a server that costs next to nothing, as in `make bench`."""
    match session:
        case Mobius():
            speed = _speed_at_a_bare_server(session, 2000 if isinstance(session, Ours) else 60)
        case CeleryPool():
            speed = _speed_at_redis(session, 2000)
        case _:
            return {}
    return {f"trivial jobs, {WORKERS} slots (jobs/s)": speed}


def _speed_at_a_bare_server(session: Mobius, jobs: int) -> float:
    with job_server() as server:
        session.use(server.url)
        session.start_worker(WORKERS)
        server.offer(jobs)
        times = server.tally(completes=jobs)["completes"]
    tenth = jobs // 10
    return float((jobs - tenth) / (times[-1] - times[tenth - 1]))


def _speed_at_redis(session: CeleryPool, jobs: int) -> float:
    for _ in range(jobs):
        session.submit("trivial")
    queued = session.results()
    session.start_worker(WORKERS)
    until(lambda: session.results() >= queued + jobs // 10)
    before, began = session.results(), time.monotonic()
    until(lambda: session.results() >= queued + jobs)
    return (queued + jobs - before) / (time.monotonic() - began)
