"""The number of CPUs that this process may use: its affinity, and the CPU quotas of its control groups (cgroups(7)).

A container usually sees all CPUs of its host, with a quota of CPU time.  The group of the process and every visible
group above it may set a quota; the smallest applies.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted hierarchy of control groups: the mount point, and the group that is mounted there."""

    point: Path
    root: PurePosixPath
    is_v2: bool

    def folders(self, group: str) -> Iterator[Path]:
        """Yield the folders of `group` and of the groups above it, as far as they are visible."""
        try:
            below = PurePosixPath(group).relative_to(self.root)
        except ValueError:  # the group is not below the mounted one, as in a container without a cgroup namespace
            below = PurePosixPath()
        folder = self.point / below
        yield folder
        for part in range(len(below.parts)):
            yield folder.parents[part]


def available_cpus() -> int:
    """Return the number of usable CPUs, rounded up, at least one."""
    cpus = len(os.sched_getaffinity(0))
    limits = [limit for limit in _quotas() if limit is not None]
    return max(1, min([cpus, *map(math.ceil, limits)]))


def _quotas() -> Iterator[float | None]:
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = list(mounts_in(Path("/proc/self/mountinfo").read_text()))
    except (OSError, UnicodeDecodeError):
        return
    for line in groups:
        _, controllers, group = line.split(":", 2)
        is_v2 = controllers == ""
        if is_v2 or "cpu" in controllers.split(","):
            for mount in mounts:
                if mount.is_v2 == is_v2:
                    yield from (quota_in(folder, is_v2=is_v2) for folder in mount.folders(group))


def mounts_in(mountinfo: str) -> Iterator[Mount]:
    """Yield the hierarchies that can limit CPU time, from /proc/PID/mountinfo (proc_pid_mountinfo(5))."""
    for line in mountinfo.splitlines():
        mount, _, filesystem = line.partition(" - ")
        root, point = mount.split()[3:5]
        kind, *_, options = filesystem.split()
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            yield Mount(Path(_unescaped(point)), PurePosixPath(_unescaped(root)), kind == "cgroup2")


def quota_in(folder: Path, *, is_v2: bool) -> float | None:
    """Return the quota of a group in CPUs; None if it has no quota."""
    try:
        if is_v2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _unescaped(path: str) -> str:
    """Decode the octal escapes of mountinfo."""
    for character in " \t\n\\":
        path = path.replace(f"\\{ord(character):03o}", character)
    return path
