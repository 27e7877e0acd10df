"""Memory and CPU of a child's process tree.  Runs in the parent, in a thread: the kernel walks page tables for it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import psutil


def tree_memory(pid: int, *, exact_above: int) -> int:
    """Bytes that `pid` and all its descendants use; 0 when it is gone.

    Resident sizes, which count pages that processes share once for each of them; only when these come to more than
    `exact_above` the proportional ones (PSS), which take the kernel a thousand times as long.
    """
    tree = _tree(pid)
    resident = sum(_resident(process) for process in tree)
    return resident if resident <= exact_above else sum(_proportional(process) for process in tree)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a child's process tree uses: bytes, and CPU seconds of all of it but the child itself."""

    memory: int
    others_cpu: float


def tree_usage(pid: int, *, exact_above: int) -> Usage:
    """As `tree_memory`, with what whoever looks wants to know besides."""
    others = _tree(pid)[1:]
    return Usage(tree_memory(pid, exact_above=exact_above), sum(map(_cpu, others)))


def _cpu(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _resident(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _proportional(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return _resident(process)
