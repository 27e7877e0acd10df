"""How many round trips 64 idle workers take until all are busy when 1,000 jobs appear."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.beacon import beacon
from benchmarks.figures import Figure, run_alone
from benchmarks.processes import HELPERS, settled_family
from benchmarks.programs import job_server, supervisor

WORKERS = 64
JOBS = 1_000
ROUND_TRIP = 0.02


@dataclass
class Ramp:
    """From the appearance of the jobs to the start of the last of the first 64."""

    title: str = "From idle to busy, 64 workers"
    rounds: int = 5
    round_trips: list[float] = field(default_factory=list)

    def measure(self) -> None:
        with job_server() as server, beacon() as told, supervisor(server.url, workers=WORKERS) as program:
            server.set(delay=ROUND_TRIP)
            server.until(lambda tally: tally["open_polls"])
            settled_family(program.pid, WORKERS + HELPERS)
            server.offer(JOBS, "hold", parameters={"beacon": told.path, "seconds": 60})
            busy_at = max(float(told.receive()) for _ in range(WORKERS))
            self.round_trips.append((busy_at - server.tally()["offered_at"]) / ROUND_TRIP)

    def figures(self) -> list[Figure]:
        return [Figure.of("until all are busy, round trip of 20 ms", self.round_trips, "round trips", at_most=10)]


if __name__ == "__main__":
    run_alone(Ramp())
