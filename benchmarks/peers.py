"""Kill and start as others do it: see `pools`, which runs as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field

from benchmarks.figures import Figure, run_alone


@dataclass
class Peers:
    """One of each a round."""

    title: str = "Kill and start, other pools"
    rounds: int = 5
    times: dict[str, list[float]] = field(default_factory=dict)

    def measure(self) -> None:
        command = [sys.executable, "-m", "benchmarks.pools"]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        for what, milliseconds in json.loads(told).items():
            self.times.setdefault(what, []).append(milliseconds)

    def figures(self) -> list[Figure]:
        return [Figure.of(what, times, "ms") for what, times in self.times.items()]


if __name__ == "__main__":
    run_alone(Peers())
