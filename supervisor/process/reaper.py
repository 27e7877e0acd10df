"""Reaps the parent's child processes: registered ones (zygotes and children) and orphans.  Runs in the parent.

The parent is a subreaper: when a child dies, the surviving processes that its handler started become children of the
parent.  A child of the parent that is not registered is such an orphan and is killed.
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
"""Seconds between SIGKILL and giving up on a process: freeing the memory of a big one takes a second or two."""
FOREIGN_KILL_TIMEOUT = 0.1
"""Seconds to wait for a process that the parent may not kill: the kernel may be ending its control group."""
EXIT_POLL_INTERVAL = 0.02
"""Seconds between two checks of a process for which there is no pidfd."""
ORPHAN_SCAN_DELAYS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds until the next search for orphans while no descriptor is available for it."""


class ManagedProcess(Protocol):
    """A child or a zygote."""

    @property
    def pid(self) -> int | None:
        """None until it is known."""

    def poll_pid(self) -> None:
        """Read the messages of a starting process, one of which may carry its pid."""


class Reaper:
    """Register a process before forking it; unregister it after reaping it."""

    def __init__(self, delegation: Delegation | None = None) -> None:
        become_subreaper()
        self._delegation = delegation
        self.tag = new_tag()
        """The tag of every process that the parent or its children start (see `linux.process_tag`)."""
        self.spare_descriptor = SpareDescriptor()
        """A descriptor for results that children send; kept while any process is registered."""
        self.session_weights = SessionWeights()
        """The CPU weights of the children's sessions, relative to the parent's session."""
        self._members: set[ManagedProcess] = set()
        # Children that are older than the parent's program are not orphans: a shell that exec'ed it may have had some.
        self._preexisting = frozenset(children_of(os.getpid()))
        self._unkillable = UnkillableProcesses()
        self._sweeps = 0
        """Number of running `kill_orphans` calls."""
        self.kill_timeout = KILL_TIMEOUT
        """Seconds to wait for a process after SIGKILL."""

    def register(self, member: ManagedProcess) -> None:
        self._members.add(member)
        self.spare_descriptor.fill()

    def unregister(self, member: ManagedProcess) -> None:
        self._members.discard(member)
        if not self._members:
            self.spare_descriptor.close()

    def belongs_to_job(self, pid: int) -> bool:
        """Return True if a process belongs to a job of this parent, even if the process tries to hide."""
        return belongs_to_job(pid, self.tag, self._preexisting)

    def new_cgroup(self) -> Cgroup | NoCgroup:
        """Return a control group for a new child, or `NoCgroup` without delegation."""
        return NoCgroup() if self._delegation is None else self._delegation.new_cgroup()

    async def kill_orphans(self) -> int:
        """Kill and reap orphans until none is left; return their number.

        Orphans that survive SIGKILL count as unkillable.  Concurrent calls share the wait for each orphan.
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
        known = self._known_pids()  # after `present`, as in `_orphans`
        inherited = {pid for pid in present if pid not in known and pid not in self._unkillable and has_ended(pid)}
        for pid in inherited:
            reap_at_once(pid)
        self._preexisting -= inherited  # their pids will belong to others

    async def _sweep(self) -> int:
        swept = 0
        # The children of an orphan become orphans only when it is dead: hence the loop.
        while orphans := await self._orphans_when_possible():
            began_at = asyncio.get_running_loop().time()
            refused = {pid for pid in orphans if not kill_child(pid)}
            for pid in orphans:
                timeout, reason = (
                    (FOREIGN_KILL_TIMEOUT, "process of another user")
                    if pid in refused
                    else (self.kill_timeout, "survived SIGKILL")
                )
                swept += await self._reap(pid, began_at + timeout, reason)
        return swept

    async def _reap(self, pid: int, give_up_at: float, reason: str) -> bool:
        """Reap an orphan, unkillable after `give_up_at`; return True if this call has reaped it."""
        if pid in self._unkillable or pid in self._known_pids():
            return False  # another call gave up on it, or has reaped it and a new child has its pid
        try:
            async with asyncio.timeout_at(give_up_at):
                return await reap(pid)
        except TimeoutError:
            if has_ended(pid):
                return reap_at_once(pid)
            self._unkillable.add(pid, reason)
            return False

    async def _orphans_when_possible(self) -> list[int]:
        """Return `_orphans`, retried while no descriptor is available; empty after the last retry."""
        for wait in ORPHAN_SCAN_DELAYS:
            try:
                return self._orphans()
            except OSError as error:
                if error.errno not in OUT_OF_DESCRIPTORS:
                    raise
                log.warning("search for orphans failed", error=error.strerror, again_in=wait)
                await asyncio.sleep(wait)
        return []  # the next call finds them

    def _orphans(self) -> list[int]:
        present = children_of(os.getpid())
        # The pid of a new child is written to its pipe before the child becomes a child of the parent.  So list the
        # children first and read the pipes second: then each listed process is either known or an orphan.
        known = self._known_pids()
        return [
            pid for pid in present if pid not in known and pid not in self._preexisting and pid not in self._unkillable
        ]

    def _known_pids(self) -> set[int | None]:
        """Return the pids of all registered processes, including starting ones."""
        for member in tuple(self._members):
            member.poll_pid()
        return {member.pid for member in self._members}


async def reap(pid: int) -> bool:
    """Wait for the child process `pid` and reap it; return True if this call has reaped it."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        await ended(pid)
        return reap_at_once(pid)
    return False


async def ended(pid: int) -> None:
    """Wait until the child process `pid` has ended, without reaping it."""
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
"""Seconds between two checks; a pidfd for each process would be held as long as the process lives."""


class UnkillableProcesses:
    """Orphans that survived SIGKILL; each is reaped if it ends later."""

    def __init__(self) -> None:
        self._pids: set[int] = set()
        self._is_scheduled = False

    def __contains__(self, pid: int) -> bool:
        return pid in self._pids

    def add(self, pid: int, reason: str) -> None:
        """Stop waiting for `pid`."""
        if pid not in self._pids:
            log.error("an orphan process cannot be ended", pid=pid, reason=reason)
            self._pids.add(pid)
            self._schedule_check()

    def _schedule_check(self) -> None:
        if self._pids and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_later(UNKILLABLE_POLL_INTERVAL, self._check)

    def _check(self) -> None:
        self._is_scheduled = False
        for pid in tuple(self._pids):
            if has_ended(pid):
                reap_at_once(pid)
                self._pids.discard(pid)
                log.info("unkillable orphan process has ended", pid=pid)
        self._schedule_check()


def reap_at_once(pid: int) -> bool:
    """Reap the child process `pid` if it has ended; return True if this call has reaped it."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False


def belongs_to_job(pid: int, tag: int, preexisting: Container[int]) -> bool:
    """Return True if `pid` has the tag or descends from a child of the parent that is not in `preexisting`.

    A process that is gone counts as a job's: it may have exited in order to hide.  A `pid` of 0 belongs to no job: it
    is the pid of a process outside of this namespace (unix(7), SO_PEERCRED).
    """
    if pid == 0:
        return False
    if has_tag(pid, tag):
        return True
    parent = _parent_of(pid)
    return parent is None or _descends(pid, parent, preexisting)


def _descends(pid: int, parent: int, preexisting: Container[int]) -> bool:
    ours = {child for child in children_of(os.getpid()) if child not in preexisting}
    while pid not in ours:
        if parent in (0, os.getpid()):
            return False  # a preexisting process, or the top of the tree
        above = _parent_of(parent)
        if above is not None:
            pid, parent = parent, above
            continue
        now = _parent_of(pid)
        if now is None:
            return True
        if now == parent:
            return parent in ours  # the parent process is hidden (proc(5), hidepid), as is that of a sudo command
        parent = now
    return True


def _parent_of(pid: int) -> int | None:
    """Return the pid of the parent process (proc_pid_stat(5)); None when `pid` is gone or hidden."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
