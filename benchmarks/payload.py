"""A big result and big parameters: how fast they pass, and how little of them the parent holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.figures import Figure, run_alone
from benchmarks.processes import MIB, peak_of
from benchmarks.programs import JobServer, Program, job_server, supervisor

RESULT = 256
PARAMETERS = 64
"""MiB of both."""


@dataclass
class Payload:
    """One job of each kind a round."""

    title: str = "Big results and parameters"
    rounds: int = 3
    speeds: dict[str, list[float]] = field(default_factory=dict)
    growths: dict[str, list[float]] = field(default_factory=dict)

    def measure(self) -> None:
        with job_server() as server, supervisor(server.url, workers=1) as program:
            server.offer(1, "trivial")
            server.tally(completes=1)
            result = {"parameters": {"size": RESULT * MIB}}
            self._pass(server, program, f"result of {RESULT} MiB", RESULT, "produce", result)
            parameters = {"parameters_size": PARAMETERS * MIB}
            self._pass(server, program, f"parameters of {PARAMETERS} MiB", PARAMETERS, "consume", parameters)

    def _pass(
        self, server: JobServer, program: Program, what: str, size: int, action: str, job: dict[str, Any]
    ) -> None:
        done = len(server.tally()["completes"])
        with peak_of(program.pid) as peak:
            server.offer(1, action, **job)
            tally = server.tally(completes=done + 1)
        assert not tally["failures"], tally["failures"]
        self.speeds.setdefault(what, []).append(size / (tally["completes"][-1] - tally["claims"][-1]))
        self.growths.setdefault(what, []).append(peak.growth / MIB)

    def figures(self) -> list[Figure]:
        return [
            figure
            for what in self.speeds
            for figure in (
                Figure.of(f"{what}: claim to report", self.speeds[what], "MiB/s", at_least=150),
                Figure.of(f"{what}: growth of the parent", self.growths[what], "MiB", at_most=16),
            )
        ]


if __name__ == "__main__":
    run_alone(Payload())
