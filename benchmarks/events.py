"""One handler that emits 100,000 events: how fast the server has them, and what that costs the parent in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.figures import Figure, run_alone
from benchmarks.processes import MIB, cpu_of, peak_of
from benchmarks.programs import job_server, supervisor

EVENTS = 100_000


@dataclass
class Events:
    """One flood a round, after a smaller one."""

    title: str = "Events"
    rounds: int = 3
    count: int = EVENTS
    rates: list[float] = field(default_factory=list)
    growths: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    def measure(self) -> None:
        with job_server() as server, supervisor(server.url, workers=1) as program:
            server.offer(1, "emit", parameters={"count": self.count // 10})
            server.tally(completes=1)
            cpu = cpu_of(program.pid)
            with peak_of(program.pid) as peak:
                server.offer(1, "emit", parameters={"count": self.count})
                tally = server.tally(completes=2)
            cpu = cpu_of(program.pid) - cpu
        began_at = tally["claims"][1]
        accepted = [(count, at) for count, at in tally["events"] if at > began_at]
        assert sum(count for count, _ in accepted) == self.count, "not all of them have arrived"
        self.rates.append(self.count / (accepted[-1][1] - began_at))
        self.growths.append(peak.growth / MIB)
        self.costs.append(cpu / self.count * 1e6)

    def figures(self) -> list[Figure]:
        return [
            Figure.of("events accepted by the server", self.rates, "a second", at_least=30_000),
            Figure.of("growth of the parent meanwhile", self.growths, "MiB", at_most=5),
            Figure.of("CPU of the parent", self.costs, "µs an event"),
        ]


if __name__ == "__main__":
    run_alone(Events())
