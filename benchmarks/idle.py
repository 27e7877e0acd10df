"""What 64 idle workers cost: processor of all processes, and connections that wait at the server.

How much a process needs to do next to nothing once a second says more of the machine than of the process: one that
has paged it out, or let its core sleep, takes milliseconds.  So a program that does nothing else is beside it.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

from benchmarks.figures import Figure, run_alone
from benchmarks.processes import HELPERS, cpu_of, settled_family
from benchmarks.programs import job_server, program, supervisor

WORKERS = 64
WAKES = (sys.executable, "-c", "import time\nwhile True: time.sleep(1); open('/proc/meminfo').read()")


@dataclass
class Idle:
    """Some seconds of nothing, so many that a poll ends in between."""

    title: str = "Idle, 64 workers"
    rounds: int = 2
    seconds: float = 21.0
    shares: list[float] = field(default_factory=list)
    """Percent of a core."""
    polls: list[float] = field(default_factory=list)
    wakes: list[float] = field(default_factory=list)
    """Percent of a core that the program beside it needs."""

    def measure(self) -> None:
        with job_server() as server, supervisor(server.url, workers=WORKERS) as ours, program(WAKES) as other:
            server.until(lambda tally: tally["open_polls"])
            family = [ours.pid, *settled_family(ours.pid, WORKERS + HELPERS)]
            before, before_other = sum(map(cpu_of, family)), cpu_of(other.pid)
            self.polls.append(server.tally()["open_polls"])
            time.sleep(self.seconds)
            self.polls.append(server.tally()["open_polls"])
            self.shares.append((sum(map(cpu_of, family)) - before) / self.seconds * 100)
            self.wakes.append((cpu_of(other.pid) - before_other) / self.seconds * 100)

    def figures(self) -> list[Figure]:
        return [
            Figure.of("processor, all processes", self.shares, "% of a core", at_most=0.2),
            Figure.of("a program that reads one file a second", self.wakes, "% of a core"),
            Figure.of("open polls, at most", self.polls, "", share=1.0, at_most=1),
        ]


if __name__ == "__main__":
    run_alone(Idle())
