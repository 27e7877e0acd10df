"""The part of the tree of control groups (cgroups(7), version 2) that the service manager has delegated.

Runs in the parent.  Where there is one, each child has a group of its own in it:

    the unit's group   holds no process, or no controller could be switched on for those below
    ├── supervisor     the supervisor and its zygotes
    └── child-N        a child and all that it started
"""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

import structlog

from supervisor.linux.syscalls import enter_cgroup
from supervisor.process.cgroup import Cgroup, NoCgroup

log = structlog.get_logger("cgroup")

CONTROLLERS = ("memory", "pids")
DELEGATE_ATTRIBUTE = "user.delegate"
"""The extended attribute by which systemd marks a delegated group (systemd.resource-control(5))."""
SUPERVISOR_GROUP = "supervisor"
CHILD_GROUP_PREFIX = "child-"


class NotDelegated(Exception):
    """No group is delegated; the message is the reason.  Caught in this module."""


class Delegation:
    """A delegated group, with this process in a group of its own below it."""

    def __init__(self, folder: Path) -> None:
        """Move this process, the only one in `folder`, into its own group below `folder`."""
        self._folder = folder
        self._numbers = itertools.count(1)
        ours = folder / SUPERVISOR_GROUP
        ours.mkdir(exist_ok=True)
        enter_cgroup(ours)
        self.controllers = [name for name in CONTROLLERS if name in (folder / "cgroup.controllers").read_text().split()]
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in self.controllers))

    @classmethod
    def found(cls) -> Delegation | None:
        """Return the delegation of this process's group, or None; log the result with its reason."""
        try:
            delegation = cls(_delegated(_own_folder()))
        except (NotDelegated, OSError) as error:
            log.info("no control groups for the children", reason=str(error))
            return None
        log.info("each child has a control group", controllers=delegation.controllers, below=str(delegation._folder))
        return delegation

    def new_cgroup(self) -> Cgroup | NoCgroup:
        """Return an empty group for a child; `NoCgroup`, with a warning, when the kernel refuses to create one."""
        try:
            return self._prepared(self._new_folder())
        except OSError as error:
            log.warning("no control group for a child", error=str(error))
            return NoCgroup()

    async def sweep(self) -> None:
        """Kill the processes and remove the groups that a previous, dead supervisor has left."""
        for folder in self._folder.glob(f"{CHILD_GROUP_PREFIX}*"):
            left = Cgroup(folder, counts_memory=False)
            left.kill()
            await left.remove()

    def _new_folder(self) -> Path:
        while True:
            folder = self._folder / f"{CHILD_GROUP_PREFIX}{next(self._numbers)}"
            with contextlib.suppress(
                FileExistsError
            ):  # left by a previous supervisor, with an unkillable process in it
                folder.mkdir()
                return folder

    def _prepared(self, folder: Path) -> Cgroup:
        cgroup = Cgroup(folder, counts_memory="memory" in self.controllers)
        try:
            cgroup.dies_as_one()
            if (most := self._most_processes()) is not None:
                cgroup.set_process_limit(most)
        except OSError:
            folder.rmdir()
            raise
        return cgroup

    def _most_processes(self) -> int | None:
        """Return half of the unit's task limit: a fork bomb in one job leaves the rest to other jobs."""
        if "pids" not in self.controllers:
            return None
        most = (self._folder / "pids.max").read_text().strip()
        return None if most == "max" else max(int(most) // 2, 1)


def own_path(membership: str) -> str:
    """Return the path of a process's version 2 group from the text of /proc/PID/cgroup."""
    for line in membership.splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::")
    raise NotDelegated("the kernel has no control groups of version 2")


def mount_point(mounts: str) -> Path:
    """Return the mount point of that tree from the text of /proc/PID/mountinfo (proc_pid_mountinfo(5))."""
    for line in mounts.splitlines():
        mount, _, kind = line.partition(" - ")
        if kind.split()[0] == "cgroup2":
            return Path(mount.split()[4])
    raise NotDelegated("control groups of version 2 are not mounted")


def _own_folder() -> Path:
    path = own_path(Path("/proc/self/cgroup").read_text())
    return mount_point(Path("/proc/self/mountinfo").read_text()) / path.lstrip("/")


def _delegated(folder: Path) -> Path:
    """Return `folder` if it is delegated."""
    if not _is_marked(folder):
        raise NotDelegated("the unit does not delegate its control group (Delegate=memory pids)")
    if not os.access(folder, os.W_OK):
        raise NotDelegated("the control group cannot be written here (ProtectControlGroups=no)")
    if _pids(folder) != [os.getpid()] or _pids(folder / SUPERVISOR_GROUP):
        raise NotDelegated("the supervisor is not alone in its unit")
    return folder


def _is_marked(folder: Path) -> bool:
    try:
        return os.getxattr(folder, DELEGATE_ATTRIBUTE) == b"1"
    except OSError:
        return False


def _pids(folder: Path) -> list[int]:
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    except FileNotFoundError:
        return []
