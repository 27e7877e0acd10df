"""Whether a job costs more when many have been before it: the last tenth of 10,000 against the first.

Some machines are fast for a second or two and then slower, so the bare loop, in which nothing can grow, is beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.figures import Figure, run_alone
from benchmarks.processes import MIB, cpu_of, memory_of
from benchmarks.programs import JobServer, Program, job_server, module, supervisor

TENTH = 1_000


@dataclass
class Growth:
    """Ten tenths, after one that does not count."""

    title: str = "10,000 jobs"
    rounds: int = 5
    slower: list[float] = field(default_factory=list)
    """Percent, as the next."""
    dearer: list[float] = field(default_factory=list)
    grown: list[float] = field(default_factory=list)

    bare_slower: list[float] = field(default_factory=list)

    def measure(self) -> None:
        with job_server() as server, supervisor(server.url, workers=8) as program:
            _do_a_tenth(server, program)
            before = memory_of(program.pid)
            time, cpu = _rises(server, program)
            self.grown.append((memory_of(program.pid) - before) / MIB)
        self.slower.append(time)
        self.dearer.append(cpu)
        with job_server() as server, module("bare_loop", server.url) as program:
            _do_a_tenth(server, program)
            self.bare_slower.append(_rises(server, program)[0])

    def figures(self) -> list[Figure]:
        return [
            Figure.of("last tenth slower than the first", self.slower, "%", at_most=5),
            Figure.of("the same of the bare loop", self.bare_slower, "%"),
            Figure.of("CPU of the parent in the last tenth, more than in the first", self.dearer, "%", at_most=5),
            Figure.of("growth of the parent", self.grown, "MiB", at_most=5),
        ]


def _rises(server: JobServer, program: Program) -> tuple[float, float]:
    """By how many percent the last tenth took more time, and processor, than the first."""
    (first_time, first_cpu), *_, (last_time, last_cpu) = [_do_a_tenth(server, program) for _ in range(10)]
    return (last_time / first_time - 1) * 100, (last_cpu / first_cpu - 1) * 100


def _do_a_tenth(server: JobServer, program: Program) -> tuple[float, float]:
    """The seconds it took, and those of processor."""
    done = len(server.tally()["completes"])
    cpu = cpu_of(program.pid)
    server.offer(TENTH)
    tally = server.tally(completes=done + TENTH)
    return tally["completes"][-1] - tally["claims"][done], cpu_of(program.pid) - cpu


if __name__ == "__main__":
    run_alone(Growth())
