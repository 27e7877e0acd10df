"""How late heartbeats arrive that are due every second, while 64 jobs compute on all cores."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

from benchmarks.figures import Figure, run_alone
from benchmarks.processes import HELPERS, prefer, settled_family
from benchmarks.programs import job_server, supervisor

WORKERS = 64
INTERVAL = 1.0
TTL = "10m"
"""So that no lease is lost, however late: whoever is silent for long is to stay among those that are counted."""


@dataclass
class Heartbeats:
    """One long look."""

    title: str = "Heartbeats at 1 s, 64 spinning jobs"
    rounds: int = 1
    seconds: float = 120.0
    lateness: list[float] = field(default_factory=list)
    """Milliseconds by which each came more than an interval after the one before it."""

    def measure(self) -> None:
        with job_server() as server, supervisor(server.url, workers=WORKERS, lease_ttl=TTL) as program:
            with suppress(OSError):  # what is late is to be the program, not the clock that it is seen by
                prefer(server.program.pid)
            server.until(lambda tally: tally["open_polls"])
            settled_family(program.pid, WORKERS + HELPERS)
            server.offer(WORKERS, "spin", interval=INTERVAL)
            server.until(lambda tally: len(tally["claims"]) == WORKERS)
            time.sleep(self.seconds)
            tally, ended_at = server.tally(), time.monotonic()
        self.lateness += lateness_of(tally["claims"], tally["beats"], ended_at)

    def figures(self) -> list[Figure]:
        return [
            Figure.of("lateness, p50", self.lateness, "ms"),
            Figure.of("lateness, p99", self.lateness, "ms", share=0.99, at_most=50),
            Figure.of(f"lateness, worst of {len(self.lateness):,}", self.lateness, "ms", share=1.0, at_most=250),
        ]


def lateness_of(claims: Iterable[float], beats: Iterable[tuple[str, float]], ended_at: float) -> list[float]:
    """Milliseconds by which each heartbeat came more than an interval after what was before it, or has not come yet.

    The server names the jobs by the order in which it hands them out.
    """
    times = {f"{number:08}": [claimed_at] for number, claimed_at in enumerate(claims)}
    for job, at in beats:
        times[job].append(at)
    overdue = [ended_at - each[-1] - INTERVAL for each in times.values()]
    arrived = [after - before - INTERVAL for each in times.values() for before, after in pairwise(each)]
    return [max(0.0, late) * 1e3 for late in (*arrived, *(late for late in overdue if late > 0))]


if __name__ == "__main__":
    run_alone(Heartbeats())
