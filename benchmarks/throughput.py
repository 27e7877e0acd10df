"""Trivial jobs a second and what each costs the parent: the supervisor against the bare loop, in alternation."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from benchmarks.programs import JobServer, Program, bare_loop, job_server, supervisor

WORKERS = 8
JOBS = 5_000
WARM_UP = 500
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Trial:
    """How fast a worker was."""

    jobs_per_second: float
    cpu_per_job: float
    """Seconds of the worker's main process."""
    server_cpu_per_job: float


def trial(worker: Callable[[str], AbstractContextManager[Program]], jobs: int = JOBS) -> Trial:
    """Have a worker, once it is warm, do so many jobs."""
    with job_server() as server, worker(server.url) as program:
        server.until(lambda tally: tally["open_polls"])
        server.offer(WARM_UP)
        before = server.tally(completes=WARM_UP)
        return _measure(server, program, jobs, before["cpu"])


def _measure(server: JobServer, program: Program, jobs: int, server_cpu: float) -> Trial:
    cpu = program.cpu
    server.offer(jobs)
    after = server.tally(completes=WARM_UP + jobs)
    cpu = program.cpu - cpu
    seconds = after["completes"][-1] - after["claims"][WARM_UP]
    assert not after["failures"], after["failures"]
    return Trial(jobs / seconds, cpu / jobs, (after["cpu"] - server_cpu) / jobs)


def _supervisor(url: str) -> AbstractContextManager[Program]:
    return supervisor(url, workers=WORKERS)


def main() -> None:
    peers = {"supervisor": _supervisor, "bare loop": bare_loop}
    trials: dict[str, list[Trial]] = {name: [] for name in peers}
    for _ in range(ROUNDS):
        for name, worker in peers.items():
            trials[name].append(trial(worker))
    print(f"{'':12}{'jobs/s':>8}  {'(min–max)':16}{'CPU µs/job':>12}{'server µs/job':>15}")
    for name, each in trials.items():
        speeds = [one.jobs_per_second for one in each]
        cpu = statistics.median(one.cpu_per_job for one in each) * 1e6
        server = statistics.median(one.server_cpu_per_job for one in each) * 1e6
        spread = f"({min(speeds):.0f}–{max(speeds):.0f})"
        print(f"{name:12}{statistics.median(speeds):8.0f}  {spread:16}{cpu:12.0f}{server:15.0f}")


if __name__ == "__main__":
    main()
