"""What processes use and when they end, as the kernel tells it."""

from __future__ import annotations

import os
import select
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
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

    def look(self) -> None:
        with suppress(FileNotFoundError, ProcessLookupError):
            self.most = max(self.most, memory_of(self._pid))


class ProcessorUse:
    """How much processor a process had used at which times."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: list[tuple[float, float]] = []

    def look(self) -> None:
        self._seen.append((time.monotonic(), cpu_of(self._pid)))

    def within(self, span: tuple[float, float]) -> float:
        """Seconds of processor between two times of CLOCK_MONOTONIC."""
        return self._until(span[1]) - self._until(span[0])

    def _until(self, moment: float) -> float:
        later = bisect_left(self._seen, (moment, 0.0))
        later = max(1, min(later, len(self._seen) - 1))
        (before, used_before), (after, used_after) = self._seen[later - 1 : later + 1]
        return used_before + (used_after - used_before) * (moment - before) / (after - before)


@contextmanager
def peak_of(pid: int) -> Iterator[Peak]:
    """Watch a process's memory inside the block."""
    peak = Peak(pid)
    with _looking(peak.look):
        yield peak


@contextmanager
def processor_of(pid: int) -> Iterator[ProcessorUse]:
    """Watch a process's use of the processor inside the block."""
    use = ProcessorUse(pid)
    with _looking(use.look):
        yield use


@contextmanager
def _looking(look: Callable[[], None]) -> Iterator[None]:
    over = threading.Event()

    def look_until_it_is_over() -> None:
        while not over.wait(_LOOK_EVERY):
            look()

    looking = threading.Thread(target=look_until_it_is_over)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
