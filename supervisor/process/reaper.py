"""The processes that are the supervisor's own children: the known ones, and what dead children left behind.

Runs in the parent, which is a subreaper: when a child dies, all that its handler started and that still lives becomes
a child of the parent.  Whatever is a child of the parent without being a member is such a leftover and is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Container
from pathlib import Path
from typing import Protocol

import structlog

from supervisor.linux.process_tag import has_tag, new_tag
from supervisor.linux.spare_descriptor import SpareDescriptor
from supervisor.linux.syscalls import become_subreaper, children_of, has_ended, kill_child
from supervisor.process.cgroup import Cgroup, NoCgroup
from supervisor.process.cgroup_delegation import Delegation
from supervisor.process.readable import wait_readable
from supervisor.process.session_weights import SessionWeights

log = structlog.get_logger("family")

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
KILL_TIMEOUT = 5.0
"""Seconds that a process may live on after its SIGKILL: to give back the memory of a big one takes a second or two."""
FOREIGN_KILL_TIMEOUT = 0.1
"""Seconds for one that is not ours to kill: the kernel may be ending it, with its control group."""
EXIT_POLL_INTERVAL = 0.02
"""Seconds between two looks at a process that cannot be watched."""
ORPHAN_SCAN_DELAYS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds until the next look for strays while there is no descriptor to look with."""


class ManagedProcess(Protocol):
    """A process that belongs here: a child or a zygote."""

    @property
    def pid(self) -> int | None:
        """None until it is known."""

    def poll_pid(self) -> None:
        """Read what the process has said so far, so that a newborn's pid is known."""


class Reaper:
    """Members join before they are forked and leave once they are reaped."""

    def __init__(self, delegation: Delegation | None = None) -> None:
        become_subreaper()
        self._delegation = delegation
        self.tag = new_tag()
        """What every process of this family wears (see `process.mark`)."""
        self.spare_descriptor = SpareDescriptor()
        """A descriptor for what a member has to hand over; kept while there is any member."""
        self.session_weights = SessionWeights()
        """How much CPU the sessions of children get beside the parent's."""
        self._members: set[ManagedProcess] = set()
        # What was here before us (a shell that exec'ed into us may have had children) is none of our business.
        self._preexisting = frozenset(children_of(os.getpid()))
        self._unkillable = UnkillableProcesses()
        self._sweeps = 0
        """How many sweeps are going on."""
        self.kill_timeout = KILL_TIMEOUT
        """Seconds until a process that outlives its SIGKILL is not waited for any more."""

    def register(self, member: ManagedProcess) -> None:
        self._members.add(member)
        self.spare_descriptor.fill()

    def unregister(self, member: ManagedProcess) -> None:
        self._members.discard(member)
        if not self._members:
            self.spare_descriptor.close()

    def belongs_to_job(self, pid: int) -> bool:
        """Whether a process belongs to one of our jobs, whatever it does to hide."""
        return belongs_to_job(pid, self.tag, self._preexisting)

    def new_cgroup(self) -> Cgroup | NoCgroup:
        """A control group for a new child, where we have any to give."""
        return NoCgroup() if self._delegation is None else self._delegation.new_cgroup()

    async def kill_orphans(self) -> int:
        """Kill and reap what dead children left behind, until nothing is left; return how many processes that were.

        What cannot be ended is written off; several sweeps at once wait for the same strays, none for another sweep.
        """
        self._sweeps += 1
        try:
            return await self._sweep()
        finally:
            self._sweeps -= 1

    def reap_ended(self) -> None:
        """Reap inherited processes that have ended by themselves; kill nothing, wait for nothing."""
        if self._sweeps:
            return  # the sweep counts what it reaps
        present = children_of(os.getpid())
        known = self._known_pids()  # in this order, as in `_strays`
        inherited = {pid for pid in present if pid not in known and pid not in self._unkillable and has_ended(pid)}
        for pid in inherited:
            reap_at_once(pid)
        self._preexisting -= inherited  # their pids will belong to others

    async def _sweep(self) -> int:
        swept = 0
        # A leftover's own children come to us only when it is dead: hence the loop.
        while strays := await self._orphans_when_possible():
            began_at = asyncio.get_running_loop().time()
            refused = {pid for pid in strays if not kill_child(pid)}
            for pid in strays:
                patience, why = (
                    (FOREIGN_KILL_TIMEOUT, "it is another user's")
                    if pid in refused
                    else (self.kill_timeout, "SIGKILL fails")
                )
                swept += await self._reap(pid, began_at + patience, why)
        return swept

    async def _reap(self, pid: int, give_up_at: float, why: str) -> bool:
        """Wait for the end of a stray and reap it; whether it was us who did.  After `give_up_at` it is lost."""
        if pid in self._unkillable or pid in self._known_pids():
            return False  # another sweep has written it off, or reaped it, and a newborn has its pid by now
        try:
            async with asyncio.timeout_at(give_up_at):
                return await reap(pid)
        except TimeoutError:
            if has_ended(pid):
                return reap_at_once(pid)
            self._unkillable.add(pid, why)
            return False

    async def _orphans_when_possible(self) -> list[int]:
        """As `_strays`, once there are descriptors to look with; none when there are not for too long."""
        for wait in ORPHAN_SCAN_DELAYS:
            try:
                return self._orphans()
            except OSError as error:
                if error.errno not in OUT_OF_DESCRIPTORS:
                    raise
                log.warning("cannot look for what children left behind", error=error.strerror, again_in=wait)
                await asyncio.sleep(wait)
        return []  # whoever sweeps next finds them

    def _orphans(self) -> list[int]:
        present = children_of(os.getpid())
        # A newborn's pid is written to its pipe before it becomes our child; so look at the children first,
        # at the pipes then, and every child that is present is either known or a stray.
        known = self._known_pids()
        return [
            pid for pid in present if pid not in known and pid not in self._preexisting and pid not in self._unkillable
        ]

    def _known_pids(self) -> set[int | None]:
        """The pids of all members, of those that are just being born as well."""
        for member in tuple(self._members):
            member.poll_pid()
        return {member.pid for member in self._members}


async def reap(pid: int) -> bool:
    """Wait for the end of our child `pid` without blocking the loop, and reap it; whether it was us who did."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        await ended(pid)
        return reap_at_once(pid)
    return False


async def ended(pid: int) -> None:
    """Wait until our child `pid` has ended, without reaping it."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno not in OUT_OF_DESCRIPTORS:
            raise
        while not has_ended(pid):  # noqa: ASYNC110 - there is no event without a descriptor
            await asyncio.sleep(EXIT_POLL_INTERVAL)
        return
    try:
        await wait_readable(pidfd)
    finally:
        os.close(pidfd)


UNKILLABLE_POLL_INTERVAL = 1.0
"""Seconds between two looks at whether one has ended; a descriptor for each would be held for as long as it lives."""


class UnkillableProcesses:
    """Those of one family."""

    def __init__(self) -> None:
        self._pids: set[int] = set()
        self._is_looking = False

    def __contains__(self, pid: int) -> bool:
        return pid in self._pids

    def add(self, pid: int, why: str) -> None:
        """Wait for `pid` no longer."""
        if pid not in self._pids:
            log.error("a process that a job left behind cannot be ended, and is let be", pid=pid, reason=why)
            self._pids.add(pid)
            self._look_later()

    def _look_later(self) -> None:
        if self._pids and not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_later(UNKILLABLE_POLL_INTERVAL, self._look)

    def _look(self) -> None:
        self._is_looking = False
        for pid in tuple(self._pids):
            if has_ended(pid):
                reap_at_once(pid)
                self._pids.discard(pid)
                log.info("a process that could not be ended has ended", pid=pid)
        self._look_later()


def reap_at_once(pid: int) -> bool:
    """Reap our child `pid` if it has ended; whether there was anything to reap."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False


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
