"""Whether a process was started by a job of ours.  Runs in the parent.

Two things tell: the mark, which a process could take off on purpose; and its ancestors, for each child is a subreaper
and so are we, so that nothing that a job starts ever gets another ancestor than us.
"""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path

from supervisor.linux.syscalls import children_of
from supervisor.linux.process_tag import has_tag


def belongs_to_job(pid: int, mark: int, elders: Container[int]) -> bool:
    """Whether `pid` wears the mark or descends from a child of ours that is no elder.

    Who is gone is counted among them: whoever has something to hide may be.  A `pid` of 0 is one that this namespace
    does not know (unix(7), SO_PEERCRED): none of ours.
    """
    if pid == 0:
        return False
    if has_tag(pid, mark):
        return True
    parent = _parent_of(pid)
    return parent is None or _descends(pid, parent, elders)


def _descends(pid: int, parent: int, elders: Container[int]) -> bool:
    ours = {child for child in children_of(os.getpid()) if child not in elders}
    while pid not in ours:
        if parent in (0, os.getpid()):
            return False  # an elder, or there is nobody above
        above = _parent_of(parent)
        if above is not None:
            pid, parent = parent, above
            continue
        now = _parent_of(pid)
        if now is None:
            return True
        if now == parent:
            return parent in ours  # it is not shown to us (proc(5), hidepid), as that of somebody who used sudo
        parent = now
    return True


def _parent_of(pid: int) -> int | None:
    """The pid of a process' parent (proc_pid_stat(5)); None when it is gone, or hidden from us."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
