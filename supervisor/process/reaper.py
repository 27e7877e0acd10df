"""The processes that are the supervisor's own children: the known ones, and what dead children left behind.

Runs in the parent, which is a subreaper: when a child dies, all that its handler started and that still lives becomes
a child of the parent.  Whatever is a child of the parent without being a member is such a leftover and is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from typing import Protocol

import structlog

from supervisor.process.cgroup import Cgroup, NoCgroup
from supervisor.process.cgroup_delegation import Delegation
from supervisor.linux.syscalls import become_subreaper, children_of, has_ended, kill_child
from supervisor.process.lineage import belongs_to_job
from supervisor.process.lost import UnkillableProcesses, reap_at_once
from supervisor.linux.process_tag import new_tag
from supervisor.process.readable import wait_readable
from supervisor.linux.spare_descriptor import SpareDescriptor
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
                patience, why = (FOREIGN_KILL_TIMEOUT, "it is another user's") if pid in refused else (self.kill_timeout, "SIGKILL fails")
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
        return [pid for pid in present if pid not in known and pid not in self._preexisting and pid not in self._unkillable]

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
