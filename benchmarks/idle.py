"""What 64 idle workers cost: processor of all processes, and connections that wait at the server."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from benchmarks.figures import Figure, run_alone
from benchmarks.processes import HELPERS, cpu_of, settled_family
from benchmarks.programs import job_server, supervisor

WORKERS = 64


@dataclass
class Idle:
    """Some seconds of nothing, so many that a poll ends in between."""

    title: str = "Idle, 64 workers"
    rounds: int = 2
    seconds: float = 21.0
    shares: list[float] = field(default_factory=list)
    """Percent of a core."""
    polls: list[float] = field(default_factory=list)

    def measure(self) -> None:
        with job_server() as server, supervisor(server.url, workers=WORKERS) as program:
            server.until(lambda tally: tally["open_polls"])
            family = [program.pid, *settled_family(program.pid, WORKERS + HELPERS)]
            before = sum(map(cpu_of, family))
            self.polls.append(server.tally()["open_polls"])
            time.sleep(self.seconds)
            self.polls.append(server.tally()["open_polls"])
            self.shares.append((sum(map(cpu_of, family)) - before) / self.seconds * 100)

    def figures(self) -> list[Figure]:
        return [
            Figure.of("processor, all processes", self.shares, "% of a core", at_most=0.2),
            Figure.of("open polls, at most", self.polls, "", share=1.0, at_most=1),
        ]


if __name__ == "__main__":
    run_alone(Idle())
