"""What every worker of the comparison is given to do: the same functions for each."""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any


def trivial() -> None:
    """Nothing: what a job costs without its work."""


def tell(beacon: str) -> None:
    _say(beacon, "began")


def loop(beacon: str) -> None:
    """Compute in Python without an end, beside a process of its own."""
    started = subprocess.Popen(["sleep", "1000"])
    _say(beacon, f"{os.getpid()} {started.pid}")
    number = 0
    try:
        while True:
            number += 1
    finally:
        _say(beacon, "cleaned up")


def c_loop(beacon: str) -> None:
    """In one C call that never gives up the interpreter's lock, beside a process of its own."""
    started = subprocess.Popen(["sleep", "1000"])
    _say(beacon, f"{os.getpid()} {started.pid}")
    all(itertools.repeat(1))


def work(beacon: str, seconds: float) -> str:
    """Tell both ends of an honest job."""
    _say(beacon, "began")
    time.sleep(seconds)
    _say(beacon, "ended")
    return "the result"


def spin() -> None:
    """Compute in Python without an end."""
    number = 0
    while True:
        number += 1


def compute(beacon: str, seconds: float) -> None:
    """Compute in Python for a while."""
    _say(beacon, "began")
    end_at = time.monotonic() + seconds
    while time.monotonic() < end_at:
        pass


def segfault(beacon: str) -> None:
    _say(beacon, "began")
    ctypes.string_at(0)


def grow(beacon: str, mebibytes: int) -> None:
    """Take more and more memory, 25 MiB at a time, and say how much."""
    held = []
    for taken in range(25, mebibytes + 1, 25):
        held.append(b"x" * (25 * 2**20))
        _say(beacon, str(taken))
        time.sleep(0.1)
    _say(beacon, "ended")


def _say(beacon: str, what: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(what.encode(), beacon)


JOBS: dict[str, Callable[..., Any]] = {
    "trivial": trivial,
    "tell": tell,
    "loop": loop,
    "c-loop": c_loop,
    "work": work,
    "spin": spin,
    "compute": compute,
    "segfault": segfault,
    "grow": grow,
}
