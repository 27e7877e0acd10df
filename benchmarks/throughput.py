"""Trivial jobs a second, and what each costs the parent: the program against its peers, in alternation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from benchmarks.figures import Figure, run_alone
from benchmarks.processes import cpu_of
from benchmarks.programs import JobServer, Program, job_server, module, supervisor

WORKERS = 8


@dataclass(frozen=True, slots=True)
class Trial:
    """How fast a worker was; seconds of processor for each job."""

    jobs_per_second: float
    cpu: float
    server_cpu: float


@dataclass(frozen=True, slots=True)
class Peer:
    """A worker, and how many jobs are enough to know how fast it is."""

    start: Callable[[str], AbstractContextManager[Program]]
    jobs: int

    def trial(self) -> Trial:
        warm_up = self.jobs // 10
        with job_server() as server, self.start(server.url) as program:
            server.until(lambda tally: tally["open_polls"])
            server.offer(warm_up)
            server.tally(completes=warm_up)
            return self._measure(server, program, warm_up)

    def _measure(self, server: JobServer, program: Program, warm_up: int) -> Trial:
        cpu, server_cpu = cpu_of(program.pid), cpu_of(server.program.pid)
        server.offer(self.jobs)
        after = server.tally(completes=warm_up + self.jobs)
        cpu, server_cpu = cpu_of(program.pid) - cpu, cpu_of(server.program.pid) - server_cpu
        assert not after["failures"], after["failures"]
        seconds = after["completes"][-1] - after["claims"][warm_up]
        return Trial(self.jobs / seconds, cpu / self.jobs, server_cpu / self.jobs)


OURS = "the program"
BARE = "the bare loop"
GUIDE = "the bare loop, written as in aiohttp's guide"
SDK = "the SDK's pool"
UNSTALLED = "the SDK's pool without its stall"
PEERS: Mapping[str, Peer] = {
    OURS: Peer(lambda url: supervisor(url, workers=WORKERS), 5_000),
    BARE: Peer(lambda url: module("bare_loop", url), 5_000),
    GUIDE: Peer(lambda url: module("bare_loop", url, "--json"), 5_000),
    UNSTALLED: Peer(lambda url: module("sdk_worker", url, "--without-stall"), 1_000),
    SDK: Peer(lambda url: module("sdk_worker", url), 60),
}


@dataclass
class Throughput:
    """All of them, one trial of each a round."""

    title: str = "Trivial jobs, 8 workers"
    rounds: int = 5
    peers: Mapping[str, Peer] = field(default_factory=lambda: PEERS)
    trials: dict[str, list[Trial]] = field(default_factory=dict)

    def measure(self) -> None:
        for name, peer in self.peers.items():
            self.trials.setdefault(name, []).append(peer.trial())

    def figures(self) -> list[Figure]:
        speeds = [
            Figure.of(name, self.speeds(name), "jobs/s", at_least=4_500 if name == OURS else None)
            for name in self.trials
        ]
        costs = [Figure.of(f"CPU of the main process: {name}", self.costs(name), "µs a job") for name in self.trials]
        server = [trial.server_cpu for trial in self.trials[BARE]]
        ceiling = Figure.of("what the server could hand out and take", [1 / each for each in server], "jobs/s")
        return [*speeds, *self._ratios(), *costs, *self._cost_ratios(), ceiling]

    def _ratios(self) -> list[Figure]:
        targets = {BARE: 0.7, GUIDE: 0.7, SDK: 100.0, UNSTALLED: 5.0}
        return [
            Figure.of(f"speed, as a multiple of {name}", self.ratios(name), "×", at_least=target)
            for name, target in targets.items()
            if name in self.trials
        ]

    def ratios(self, name: str) -> list[float]:
        """How often as fast as a peer the program was, round by round."""
        return [ours / theirs for ours, theirs in zip(self.speeds(OURS), self.speeds(name), strict=True)]

    def cost_ratios(self, name: str) -> list[float]:
        """How often as much processor as a peer's the program took, round by round."""
        return [ours / theirs for ours, theirs in zip(self.costs(OURS), self.costs(name), strict=True)]

    def _cost_ratios(self) -> list[Figure]:
        return [
            Figure.of(f"CPU, as a multiple of that of {name}", self.cost_ratios(name), "×", at_most=1.4)
            for name in (BARE, GUIDE)
            if name in self.trials
        ]

    def speeds(self, name: str) -> list[float]:
        return [trial.jobs_per_second for trial in self.trials[name]]

    def costs(self, name: str) -> list[float]:
        return [trial.cpu * 1e6 for trial in self.trials[name]]


if __name__ == "__main__":
    run_alone(Throughput())
