"""How long an order to kill takes until the job's whole process tree is dead, and until the slot has a child again.

The order is the server's answer to a heartbeat.  When that refuses the lease the job is killed at once, and the
SIGKILL comes so soon after the answer that the time counts from the answer; when it asks to cancel, the handler is
told first.  Each job has a process of its own beside it, which must be dead as well.  The slot has its replacement
when it claims again: it never does so without a child that can run a job.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from benchmarks.beacon import Beacon, beacon
from benchmarks.figures import Figure, run_alone
from benchmarks.processes import Watch
from benchmarks.programs import HANDLERS, JobServer, job_server, supervisor

JOBS = {
    "kill-python": "Python loop",
    "kill-c": "C loop that holds the interpreter's lock",
    "kill-deaf": "SIGTERM ignored",
}
INTERVAL = 0.1
"""Seconds until a heartbeat: the least that there is."""
NUMPY = HANDLERS.with_name("numpy_handlers")
OFTEN = 24


@dataclass
class Kill:
    """Kills in all ways, one after the other, in one slot."""

    title: str = "Kill"
    rounds: int = 5
    often: int = OFTEN
    dead: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """Milliseconds from the order, by the order and the job's kind."""
    ready: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds from the death, by the order."""

    def measure(self) -> None:
        with job_server() as server, beacon() as told, supervisor(server.url, workers=1, handlers=(HANDLERS, NUMPY)):
            for _ in range(self.often):
                for action in JOBS:
                    self._kill(server, told, "refuse", action)
                self._kill(server, told, "cancel", "kill-python")

    def _kill(self, server: JobServer, told: Beacon, order: str, action: str) -> None:
        server.until(lambda tally: tally["open_polls"], every=0.002)
        server.set(order="go on")
        server.offer(1, action, parameters={"beacon": told.path}, interval=INTERVAL)
        watch = Watch(json.loads(told.receive()))
        server.set(order=order)
        dead_at = watch.wait()
        ordered_at = server.tally()["orders"][-1][1]
        claims = server.until(lambda tally: tally["asked"][-1] > ordered_at, every=0.002)["asked"]
        claimed_at = min(at for at in claims if at > ordered_at)
        self.dead.setdefault((order, action), []).append((dead_at - ordered_at) * 1e3)
        # The slot may have claimed before we were told of the death.
        self.ready.setdefault(order, []).append(max(0.0, claimed_at - dead_at) * 1e3)

    def figures(self) -> list[Figure]:
        found = []
        for action, kind in JOBS.items():
            times = self.dead["refuse", action]
            found.append(Figure.of(f"lease refused → tree dead, p50: {kind}", times, "ms", at_most=2))
            found.append(Figure.of(f"lease refused → tree dead, p99: {kind}", times, "ms", share=0.99, at_most=10))
        cancelled = self.dead["cancel", "kill-python"]
        return [
            *found,
            Figure.of("told to cancel → tree dead, p50: Python loop", cancelled, "ms"),
            Figure.of("dead → replacement ready, numpy imported, p50", self.ready["refuse"], "ms", at_most=5),
            Figure.of("dead → replacement ready, numpy imported, p99", self.ready["refuse"], "ms", share=0.99),
        ]


if __name__ == "__main__":
    run_alone(Kill())
