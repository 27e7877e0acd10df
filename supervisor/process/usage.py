"""Memory and CPU of a child's process tree.  Runs in the parent, in a thread: the kernel walks page tables for it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from supervisor.linux.syscalls import children_of, cpu_seconds

_PAGE = os.sysconf("SC_PAGE_SIZE")


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
    """Return `tree_memory` and further usage figures for the status."""
    # Not with psutil, which goes through all processes of the host for each tree: here every child is looked at.
    others = descendants(pid)
    memory = sum(map(resident_size, [pid, *others]))
    if memory > exact_above:
        memory = tree_memory(pid, exact_above=exact_above)
    return Usage(memory, sum(cpu_seconds(each) or 0.0 for each in others))


def descendants(pid: int) -> list[int]:
    """The pids of all processes below `pid`; a process that forks meanwhile may be missed."""
    children = children_of(pid)
    return [*children, *(each for child in children for each in descendants(child))]


def resident_size(pid: int) -> int:
    """Resident bytes of one process (proc_pid_statm(5)); 0 when it is gone."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    return 0


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
