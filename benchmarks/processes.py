"""What processes use and when they end, as the kernel tells it."""

from __future__ import annotations

import os
import select
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

MIB = 1024 * 1024
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOOK_EVERY = 0.005
_QUIET, _NOTHING = 0.3, 0.001
"""Processes are at rest when they use less than the second in the first: both are seconds."""
HELPERS = 2
"""Processes that a supervisor has beside one for each worker: its zygote, and the spare child."""
PATIENCE = 60.0
"""Seconds that anything may take."""


def cpu_of(pid: int) -> float:
    """Seconds of processor that a process has used, all threads, to the nanosecond.

    The id of another process's clock is made as clock_getcpuclockid(3) makes it.
    """
    return time.clock_gettime((~pid << 3) | 2)


class ProcessorWatch:
    """Looks all the time at how much processor a process has used: nobody is asked at its tenths."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: list[tuple[float, float]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> ProcessorWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(_LOOK_EVERY):
            self._seen.append((time.monotonic(), cpu_of(self._pid)))

    def used_in(self, span: tuple[float, float]) -> float:
        """Seconds of processor between two times of CLOCK_MONOTONIC, as far as it has looked."""
        return self._used_until(span[1]) - self._used_until(span[0])

    def _used_until(self, moment: float) -> float:
        (before, used_before), (after, used_after) = self._around(moment)
        return used_before + (used_after - used_before) * (moment - before) / (after - before)

    def _around(self, moment: float) -> tuple[tuple[float, float], tuple[float, float]]:
        later = bisect_left(self._seen, (moment, 0.0))
        later = max(1, min(later, len(self._seen) - 1))
        return self._seen[later - 1], self._seen[later]


def memory_of(pid: int) -> int:
    """Bytes that are resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def share_of(pid: int) -> int:
    """Bytes, with pages that several processes share divided among them (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"the kernel tells no PSS of {pid}")


def family_of(pid: int) -> list[int]:
    """The pids of all that descends from a process."""
    return [process.pid for process in psutil.Process(pid).children(recursive=True)]


def settled_family(pid: int, size: int) -> list[int]:
    """The pids of all that descends from a process, once they are so many and none of them has anything left to do."""
    give_up_at = time.monotonic() + PATIENCE
    before: dict[int, float] = {}
    while time.monotonic() < give_up_at:
        now = _cpu_by_process(pid)
        if len(now) == size and now.keys() == before.keys() and sum(now.values()) - sum(before.values()) < _NOTHING:
            return list(now)
        before = now
        time.sleep(_QUIET)
    raise TimeoutError(f"not {size} processes at rest within {PATIENCE:g} s")


def _cpu_by_process(pid: int) -> dict[int, float]:
    used = {}
    for each in family_of(pid):
        with suppress(OSError):  # it has gone meanwhile
            used[each] = cpu_of(each)
    return used


def prefer(pid: int) -> None:
    """Have a process run before others, and its session before other sessions (sched(7), "The autogroup feature")."""
    os.setpriority(os.PRIO_PROCESS, pid, -10)
    Path(f"/proc/{pid}/autogroup").write_text("-10")


class Watch:
    """The end of some processes that are not our own."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._poll = select.poll()
        self._open = {os.pidfd_open(pid) for pid in pids}
        for descriptor in self._open:
            self._poll.register(descriptor, select.POLLIN)

    def wait(self) -> float:
        """When the last one was dead, be it reaped or not."""
        ended_at = time.monotonic()
        while self._open:
            for descriptor, _ in self._poll.poll():
                ended_at = time.monotonic()
                self._poll.unregister(descriptor)
                self._open.remove(descriptor)
                os.close(descriptor)
        return ended_at


class Peak:
    """The most memory that a process had in a while, and what it had at its beginning."""

    def __init__(self, pid: int) -> None:
        self.before = self.most = memory_of(pid)
        self._pid = pid

    @property
    def growth(self) -> int:
        return self.most - self.before

    def look_until(self, over: threading.Event) -> None:
        with suppress(FileNotFoundError, ProcessLookupError):
            while not over.wait(_LOOK_EVERY):
                self.most = max(self.most, memory_of(self._pid))


@contextmanager
def peak_of(pid: int) -> Iterator[Peak]:
    """Watch a process's memory inside the block."""
    peak, over = Peak(pid), threading.Event()
    looking = threading.Thread(target=peak.look_until, args=(over,))
    looking.start()
    try:
        yield peak
    finally:
        over.set()
        looking.join()
