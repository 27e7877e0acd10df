"""Memory of a child's whole process tree.  Runs in the parent, in a thread: the kernel walks page tables for it."""

from __future__ import annotations

import contextlib

import psutil


def tree_memory(pid: int, *, exact_above: int) -> int:
    """Bytes that `pid` and all its descendants use; 0 when it is gone.

    Resident sizes, which count pages that processes share once for each of them; only when these come to more than
    `exact_above` the proportional ones (PSS), which take the kernel a thousand times as long.
    """
    tree = _tree(pid)
    resident = sum(_resident(process) for process in tree)
    return resident if resident <= exact_above else sum(_proportional(process) for process in tree)


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
