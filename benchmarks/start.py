"""How long the program takes to its first claim, and eight children from a warm zygote to be ready."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, field

from benchmarks.figures import Figure, run_alone
from benchmarks.programs import HANDLERS, job_server, supervisor

CHILDREN = 8
OFTEN = 5


@dataclass
class Start:
    """The program as a whole, and its zygote alone."""

    title: str = "Start"
    rounds: int = 5
    first_claim: list[float] = field(default_factory=list)
    """Milliseconds, as the others are."""
    children: list[float] = field(default_factory=list)

    def measure(self) -> None:
        with job_server() as server:
            began = time.monotonic()
            with supervisor(server.url, workers=CHILDREN):
                claimed_at = server.until(lambda tally: tally["asked"])["asked"][0]
            self.first_claim.append((claimed_at - began) * 1e3)
        # A process of its own: it becomes the parent of what descends from it.
        command = [sys.executable, "-m", "benchmarks.nursery", str(HANDLERS), str(CHILDREN), str(OFTEN)]
        times = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        self.children += [float(each) * 1e3 for each in times]

    def figures(self) -> list[Figure]:
        return [
            Figure.of(f"{CHILDREN} children up from a warm zygote", self.children, "ms", at_most=20),
            Figure.of("start of the program → first claim", self.first_claim, "ms", at_most=400),
        ]


if __name__ == "__main__":
    run_alone(Start())
