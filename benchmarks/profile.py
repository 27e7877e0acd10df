"""Where the parent's time goes when it does nothing but trivial jobs: `python -m benchmarks.profile`."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from benchmarks.processes import PATIENCE, cpu_of
from benchmarks.programs import job_server, supervisor

JOBS = 20_000
WORKERS = 8
SHOWN = 12
"""Files of our own that get a line of their own."""

_HTTP = ("aiohttp", "yarl", "multidict", "propcache", "frozenlist", "aiosignal")


def measure() -> tuple[Mapping[str, int], float]:
    """How many samples fell in which file, and the processor time of a job in microseconds."""
    with tempfile.TemporaryDirectory() as folder, job_server() as server:
        found = Path(folder) / "samples"
        command = (sys.executable, "-m", "benchmarks.profiled", str(found))
        with supervisor(server.url, workers=WORKERS, command=command) as program:
            server.until(lambda tally: tally["open_polls"])
            server.offer(JOBS // 10)
            server.tally(completes=JOBS // 10)
            os.kill(program.pid, signal.SIGUSR2)
            before = cpu_of(program.pid)
            server.offer(JOBS)
            server.tally(completes=JOBS + JOBS // 10)
            used = cpu_of(program.pid) - before
            os.kill(program.pid, signal.SIGUSR2)
            give_up_at = time.monotonic() + PATIENCE
            while not found.exists() and time.monotonic() < give_up_at:
                time.sleep(0.01)
            return json.loads(found.read_text()), used / JOBS * 1e6


def grouped(samples: Mapping[str, int]) -> Counter[str]:
    """The same by what a reader knows: the HTTP client, asyncio and the rest of Python, our own files."""
    groups: Counter[str] = Counter()
    for file, count in samples.items():
        groups[_group(file)] += count
    ours = [name for name, _ in groups.most_common() if name.endswith(".py")]
    for name in ours[SHOWN:]:
        groups["our other files"] += groups.pop(name)
    return groups


def _group(file: str) -> str:
    package = file.rpartition("site-packages/")[2].partition("/")[0]
    if package in _HTTP:
        return "aiohttp, and what it is made of"
    if "/supervisor/" in file:
        return file.rpartition("/supervisor/")[2]
    return package if "site-packages" in file else "asyncio and the rest of Python"


def table(samples: Mapping[str, int], cost: float) -> str:
    total = sum(samples.values())
    lines = ["| where | µs a job | share |", "|---|---|---|", f"| all | {cost:.0f} | |"]
    for name, count in grouped(samples).most_common():
        lines.append(f"| {name} | {cost * count / total:.1f} | {count / total:.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(*measure()))
