"""How much memory is left: on the machine, and in each cgroup around us that has a limit.  Runs in the parent.

A look takes some 50 µs: a handful of small files that the kernel makes up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.settings.value_types import Share
from supervisor.text.size import format_size

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
MAX_FILE_BYTES = 64 * 1024
"""Bytes of a file that are read; the longest of them has two thousand."""


@dataclass(frozen=True, slots=True)
class _Files:
    """How a version of cgroups names things; `idle` is what the kernel gives back at once: old file cache."""

    limit: str
    used: str
    idle: str


_VERSION_2 = _Files("memory.max", "memory.current", "inactive_file")
_VERSION_1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def read_headroom(proc: Path = PROC, cgroups: Path = CGROUPS) -> list[Headroom]:
    """All the rooms we are in; empty where nothing tells."""
    rooms = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        rooms.append(_machine(proc))
    for folder, files in _folders(proc, cgroups):
        with contextlib.suppress(OSError, ValueError, KeyError):
            rooms.append(_cgroup(folder, files))
    return rooms


def _machine(proc: Path) -> Headroom:
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in _lines(proc / "meminfo")[:3]}
    return Headroom("the machine", sizes["MemAvailable"], sizes["MemTotal"], _stalled(proc / "pressure" / "memory"))


def _folders(proc: Path, cgroups: Path) -> list[tuple[Path, _Files]]:
    """Our own cgroup and those around it, in either version."""
    folders = []
    with contextlib.suppress(OSError):
        for line in _lines(proc / "self" / "cgroup"):
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                folders += [(folder, _VERSION_2) for folder in _upwards(cgroups, path)]
            elif "memory" in controllers.split(","):
                folders += [(folder, _VERSION_1) for folder in _upwards(cgroups / "memory", path)]
    return folders


def _upwards(top: Path, path: str) -> list[Path]:
    own = top / path.lstrip("/")
    return [own, *(folder for folder in own.parents if folder.is_relative_to(top))]


def _cgroup(folder: Path, files: _Files) -> Headroom:
    """Raises `ValueError` when there is no limit ("max")."""
    limit = int(_text(folder / files.limit))
    if limit >= 1 << 60:  # version 1 says "no limit" with a number
        raise ValueError("no limit")
    used = int(_text(folder / files.used))
    details = dict(line.split() for line in _lines(folder / "memory.stat"))
    available = max(0, limit - used + int(details[files.idle]))
    return Headroom("the cgroup", available, limit, _stalled(folder / "memory.pressure"))


def _stalled(file: Path) -> float:
    """The kernel's pressure stall information (PSI), where it keeps it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        (full,) = (line for line in _lines(file) if line.startswith("full "))
        return float(full.split("avg10=")[1].split()[0]) / 100
    return 0.0


def _lines(file: Path) -> list[str]:
    return _text(file).splitlines()


def _text(file: Path) -> str:
    # An idle program does little else than this: `read_text` takes nine system calls for these three.
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, MAX_FILE_BYTES).decode()
    finally:
        os.close(descriptor)


RECOVERY_FACTOR = 1.25
"""Times the least that must be available again: jobs that end and begin shall not open and shut by turns."""
MAX_STALL_SHARE = 0.2
"""Part of the time for which all processes may stall for lack of memory; below half of it the shortage ends."""


@dataclass(frozen=True, slots=True)
class Headroom:
    """Bytes of memory that are available in one place, and of how many.

    Also the part of the last ten seconds for which all processes there stalled for lack of memory.
    """

    where: str
    available: int
    total: int
    stalled: float = 0.0


class MemoryGuard:
    """Remembers whether memory is short, for what ends a shortage is more than what begins it."""

    def __init__(self) -> None:
        self._is_short = False

    def judge(self, rooms: Sequence[Headroom], least: Share) -> str | None:
        """Why nothing is to be claimed; None when `least` is available everywhere, or is nothing."""
        looked_at = () if least == Share() else rooms
        reasons = [reason for room in looked_at if (reason := self._lack(room, least)) is not None]
        self._is_short = bool(reasons)
        return reasons[0] if reasons else None

    def _lack(self, room: Headroom, least: Share) -> str | None:
        wanted = least.of(room.total) * (RECOVERY_FACTOR if self._is_short else 1.0)
        if room.available < wanted:
            left = format_size(room.available)
            return f"short of memory: {room.where} has {left} left, wanted are {format_size(wanted)}"
        if room.stalled >= (MAX_STALL_SHARE / 2 if self._is_short else MAX_STALL_SHARE):
            return f"short of memory: {room.where} stood still for {room.stalled:.0%} of the last 10 s"
        return None
