"""How late heartbeats are while every slot computes.  Celery has none for a task."""

from __future__ import annotations

import time

from benchmarks.beacon import Beacon
from benchmarks.comparison.mobius import Mobius
from benchmarks.comparison.session import Session
from benchmarks.figures import quantile
from benchmarks.heartbeats import INTERVAL, lateness_of
from benchmarks.programs import job_server

SLOTS = 8
SECONDS = 20.0


def python_loops(session: Session, told: Beacon) -> dict[str, float | str]:
    """All of them give up the interpreter's lock now and then."""
    what = f"heartbeats every {INTERVAL:g} s, {SLOTS} loops in Python: lateness"
    late = _lateness(session, told, loops_in_c=0)
    return {f"{what}, p50 (ms)": quantile(late, 0.5), f"{what}, worst (ms)": max(late)} if late else {}


def one_loop_in_c(session: Session, told: Beacon) -> dict[str, float | str]:
    """One of them does not."""
    late = _lateness(session, told, loops_in_c=1)
    return {f"the same, one of them in C, for {SECONDS:g} s: lateness, worst (ms)": max(late)} if late else {}


def _lateness(session: Session, told: Beacon, *, loops_in_c: int) -> list[float]:
    if not isinstance(session, Mobius):
        return []
    with job_server() as server:
        session.use(server.url)
        session.start_worker(SLOTS)
        server.offer(SLOTS - loops_in_c, "spin", interval=INTERVAL)
        server.until(lambda tally: len(tally["claims"]) == SLOTS - loops_in_c)
        if loops_in_c:
            server.offer(loops_in_c, "c-loop", parameters={"beacon": told.path}, interval=INTERVAL)
            server.until(lambda tally: len(tally["claims"]) == SLOTS)
        time.sleep(SECONDS)
        tally, ended_at = server.tally(), time.monotonic()
    return lateness_of(tally["claims"], tally["beats"], ended_at)
