"""A job that computes without an end and is cancelled, and a worker whose main process is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

from benchmarks.beacon import Beacon
from benchmarks.comparison.session import Session, is_alive, until

LONG_ENOUGH = 8.0
"""Seconds after which whatever still runs counts as not stopped."""
BUSY = 4


def cancel_python(session: Session, told: Beacon) -> dict[str, float | str]:
    """A loop that could be interrupted between any two of its instructions."""
    found, heard = _cancel(session, told, "loop", "cancel, loop in Python")
    return {**found, "cancel, loop in Python: its `finally`": "runs" if "cleaned up" in heard else "does not run"}


def cancel_c(session: Session, told: Beacon) -> dict[str, float | str]:
    """A loop that no Python code can interrupt."""
    return _cancel(session, told, "c-loop", "cancel, loop in C")[0]


def _cancel(session: Session, told: Beacon, job: str, what: str) -> tuple[dict[str, float | str], dict[str, float]]:
    """Cancel a job in a worker's only slot, with another one waiting for it; what was said, and when."""
    session.start_worker(1)
    session.run("tell", beacon=told.path)
    told.receive()
    ticket = session.submit(job, beacon=told.path)
    _, beside = map(int, told.receive().split())
    session.submit("tell", beacon=told.path)
    ordered_at = time.monotonic()
    session.cancel(ticket)
    heard = _heard(told, ordered_at + LONG_ENOUGH)
    left = _left([beside])
    _kill(left)
    freed_after = heard["began"] - ordered_at if "began" in heard else f"not within {LONG_ENOUGH:g} s"
    return {
        f"{what}: order → the slot runs the next job (s)": freed_after,
        f"{what}: its subprocess": "is left" if left else "is killed",
    }, heard


def _heard(told: Beacon, give_up_at: float) -> dict[str, float]:
    """What is said until the next job begins, and when."""
    heard: dict[str, float] = {}
    while "began" not in heard and (said := told.hear_within(give_up_at - time.monotonic())) is not None:
        heard[said] = time.monotonic()
    return heard


def kill_the_worker(session: Session, told: Beacon) -> dict[str, float | str]:
    """SIGKILL the main process while all its slots are busy."""
    session.start_worker(BUSY)
    for _ in range(BUSY):
        session.submit("loop", beacon=told.path)
    pairs = [tuple(map(int, told.receive().split())) for _ in range(BUSY)]
    session.kill_worker()
    loops, beside = ({pair[index] for pair in pairs} for index in (0, 1))
    _left([*loops, *beside])
    found: dict[str, float | str] = {
        f"worker SIGKILLed at {BUSY} loops: loops that go on": float(len(_left(loops, 0))),
        f"worker SIGKILLed at {BUSY} loops: subprocesses of theirs that are left": float(len(_left(beside, 0))),
    }
    _kill([*loops, *beside])
    return found


def _left(pids: Iterable[int], seconds: float = 3.0) -> list[int]:
    """Those that still run after they had some time to go."""
    pids = list(pids)
    until(lambda: not any(map(is_alive, pids)), seconds)
    return [pid for pid in pids if is_alive(pid)]


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
