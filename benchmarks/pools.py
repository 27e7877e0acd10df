"""Kill and start with the pools that a program would use by itself: prints JSON, milliseconds by what was measured.

`ProcessPoolExecutor` cannot stop a job: its process is killed by hand, which breaks the executor; a new one is its
replacement.  `pebble` cancels: SIGTERM, and SIGKILL three seconds after.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pebble

from benchmarks.processes import Watch

CHILDREN = 8
LONG_ENOUGH = 0.2
"""Seconds that each child is kept, so that none does the job of another."""


def _began() -> float:
    at = time.monotonic()
    time.sleep(LONG_ENOUGH)
    return at


def _loop(told: str, *, is_deaf: bool) -> None:
    if is_deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(told).symlink_to(str(os.getpid()))
    number = 0
    while True:
        number += 1


def _pid_in(told: Path) -> int:
    while not told.is_symlink():
        time.sleep(0.001)
    return int(told.readlink().name)


def _executor_up() -> float:
    began = time.monotonic()
    with ProcessPoolExecutor(CHILDREN) as executor:
        return max(each.result() for each in [executor.submit(_began) for _ in range(CHILDREN)]) - began


def _pebble_up() -> float:
    began = time.monotonic()
    with pebble.ProcessPool(CHILDREN) as pool:
        each_at: list[float] = [each.result() for each in [pool.schedule(_began) for _ in range(CHILDREN)]]
        return max(each_at) - began


def _executor_kill(told: Path) -> tuple[float, float]:
    with ProcessPoolExecutor(1) as executor:
        looping = executor.submit(_loop, str(told), is_deaf=False)
        watch = Watch([pid := _pid_in(told)])
        ordered_at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        dead_at = watch.wait()
        with contextlib.suppress(BrokenProcessPool):
            looping.result()
    with ProcessPoolExecutor(1) as executor:
        executor.submit(os.getpid).result()
        return dead_at - ordered_at, time.monotonic() - dead_at


def _pebble_kill(told: Path, *, is_deaf: bool) -> tuple[float, float]:
    with pebble.ProcessPool(1) as pool:
        looping = pool.schedule(_loop, args=[str(told)], kwargs={"is_deaf": is_deaf})
        watch = Watch([_pid_in(told)])
        ordered_at = time.monotonic()
        looping.cancel()
        dead_at = watch.wait()
        pool.schedule(os.getpid).result()
        return dead_at - ordered_at, time.monotonic() - dead_at


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        executor = _executor_kill(Path(folder, "executor"))
        loop = _pebble_kill(Path(folder, "loop"), is_deaf=False)
        deaf = _pebble_kill(Path(folder, "deaf"), is_deaf=True)
    seconds = {
        "ProcessPoolExecutor: SIGKILL by hand → dead": executor[0],
        "ProcessPoolExecutor: dead → a new executor is ready, the old one is broken": executor[1],
        "pebble: cancel → dead, Python loop": loop[0],
        "pebble: cancel → dead, SIGTERM ignored": deaf[0],
        "pebble: dead → replacement ready": loop[1],
        f"ProcessPoolExecutor: {CHILDREN} children up": _executor_up(),
        f"pebble: {CHILDREN} children up": _pebble_up(),
    }
    json.dump({what: each * 1e3 for what, each in seconds.items()}, sys.stdout)


if __name__ == "__main__":
    main()
