"""Whether a job costs more when many have been before it: the last tenth of 10,000 against the first."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.figures import Figure, run_alone
from benchmarks.processes import MIB, memory_of
from benchmarks.programs import job_server, supervisor

JOBS = 10_000
WARM_UP = 1_000


@dataclass
class Growth:
    """All jobs in one go, after some that do not count."""

    title: str = "10,000 jobs"
    rounds: int = 5
    slower: list[float] = field(default_factory=list)
    """Percent."""
    grown: list[float] = field(default_factory=list)

    def measure(self) -> None:
        with job_server() as server, supervisor(server.url, workers=8) as program:
            server.offer(WARM_UP)
            server.tally(completes=WARM_UP)
            before = memory_of(program.pid)
            server.offer(JOBS)
            ended = server.tally(completes=WARM_UP + JOBS)["completes"][WARM_UP:]
            self.grown.append((memory_of(program.pid) - before) / MIB)
        tenth = JOBS // 10
        first, last = ended[tenth - 1] - ended[0], ended[-1] - ended[-tenth]
        self.slower.append((last / first - 1) * 100)

    def figures(self) -> list[Figure]:
        return [
            Figure.of("last tenth slower than the first", self.slower, "%", at_most=5),
            Figure.of("growth of the parent", self.grown, "MiB", at_most=5),
        ]


if __name__ == "__main__":
    run_alone(Growth())
