"""Whether a job costs more when many have been before it: the last tenth of 10,000 against the first.

Some machines are fast for a second or two and then slower, so the bare loop, in which nothing can grow, is beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.figures import Figure, run_alone
from benchmarks.processes import MIB, memory_of, processor_of
from benchmarks.programs import JobServer, Program, job_server, module, supervisor

TENTH = 1_000


@dataclass
class Growth:
    """Ten tenths of one run, after one that does not count."""

    title: str = "10,000 jobs"
    rounds: int = 5
    slower: list[float] = field(default_factory=list)
    """Percent, as the next."""
    dearer: list[float] = field(default_factory=list)
    grown: list[float] = field(default_factory=list)

    bare_slower: list[float] = field(default_factory=list)

    def measure(self) -> None:
        with job_server() as server, supervisor(server.url, workers=8) as program:
            _warm_up(server)
            before = memory_of(program.pid)
            slower, dearer = _rises(server, program)
            self.grown.append((memory_of(program.pid) - before) / MIB)
        self.slower.append(slower)
        self.dearer.append(dearer)
        with job_server() as server, module("bare_loop", server.url) as program:
            _warm_up(server)
            self.bare_slower.append(_rises(server, program)[0])

    def figures(self) -> list[Figure]:
        return [
            Figure.of("last tenth slower than the first", self.slower, "%", at_most=5),
            Figure.of("the same of the bare loop", self.bare_slower, "%"),
            Figure.of("CPU of the parent in the last tenth, more than in the first", self.dearer, "%", at_most=5),
            Figure.of("growth of the parent", self.grown, "MiB", at_most=5),
        ]


def _warm_up(server: JobServer) -> None:
    server.offer(TENTH)
    server.tally(completes=TENTH)


def _rises(server: JobServer, program: Program) -> tuple[float, float]:
    """By how many percent the last tenth of one run took more time, and processor, than the first."""
    done = len(server.tally()["completes"])
    with processor_of(program.pid) as use:
        server.offer(10 * TENTH)
        tally = server.tally(completes=done + 10 * TENTH)
    completes = tally["completes"][done:]
    first = tally["claims"][done], completes[TENTH - 1]
    last = completes[-TENTH - 1], completes[-1]
    return _percent_more(_length(last), _length(first)), _percent_more(use.within(last), use.within(first))


def _length(span: tuple[float, float]) -> float:
    return span[1] - span[0]


def _percent_more(later: float, earlier: float) -> float:
    return (later / earlier - 1) * 100


if __name__ == "__main__":
    run_alone(Growth())
