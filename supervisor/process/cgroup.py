"""One control group (cgroups(7), version 2): what it bounds, counts, kills.  Runs in the parent.

A child's group holds the child and all that it started, wherever these have moved in sessions and parentage.  What
enters it does so by itself (`kernel.enter_cgroup`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from pathlib import Path

import structlog

from supervisor.linux.exit_status import OomKill
from supervisor.process.readable import wait_readable

log = structlog.get_logger("cgroup")

CGROUP_EMPTY_TIMEOUT = 2.0
"""Seconds that a killed group may still hold a process; longer only does one that the kernel cannot end."""


class Cgroup:
    """A folder in the tree of control groups."""

    def __init__(self, folder: Path, *, counts_memory: bool) -> None:
        """A group that is there; `counts_memory` says whether its memory controller is switched on."""
        self.folder = folder
        self._counts_memory = counts_memory
        self._limit: int | None = None

    def __repr__(self) -> str:
        return f"<Cgroup {self.folder.name}>"

    @property
    def path(self) -> str:
        return str(self.folder)

    def dies_as_one(self) -> None:
        """When memory runs out all of it is killed: what is left of a job without one of its parts serves nobody."""
        if self._counts_memory:
            self._write("memory.oom.group", "1")

    def set_process_limit(self, most: int) -> None:
        """Let no more than `most` processes and threads be in it."""
        self._write("pids.max", str(most))

    def set_memory_limit(self, limit: int) -> bool:
        """Have the kernel kill it when it needs more than `limit` bytes, and no swap; False when it cannot."""
        if self._counts_memory:
            self._limit = limit
            self._set_memory(str(limit), swap="0")
        return self._counts_memory

    def clear_memory_limit(self) -> None:
        """Let it use all there is."""
        if self._limit is not None:
            self._limit = None
            self._set_memory("max", swap="max")

    @property
    def memory(self) -> int:
        """Bytes that it uses, what it has read of files included."""
        return self._number("memory.current") or 0

    def oom_kill(self) -> OomKill | None:
        """How the kernel has killed it for want of memory; None when it has not."""
        counts = self._counts("memory.events")
        if not counts.get("oom_kill"):
            return None
        # `oom` counts how often it was at its own limit; when that of a group above or the host is the cause it is 0.
        limit = self._limit if counts.get("oom") else None
        peak = self._number("memory.peak")  # Linux 5.19; that of the child's whole life, so perhaps of an earlier job
        return OomKill(limit, peak if limit is None else min(peak or limit, limit))

    def kill(self) -> None:
        """SIGKILL to all that is in it, in one stroke; what forks meanwhile is killed as well."""
        with contextlib.suppress(OSError):  # Linux 5.14; or it is removed already
            self._write("cgroup.kill", "1")

    async def remove(self) -> None:
        """Remove it once what was killed in it has left."""
        try:
            async with asyncio.timeout(CGROUP_EMPTY_TIMEOUT):
                await self._empty()
            _remove_recursively(self.folder)
        except FileNotFoundError:
            pass
        except (TimeoutError, OSError) as error:
            log.warning("a control group cannot be removed", folder=str(self.folder), error=str(error) or "not empty")

    async def _empty(self) -> None:
        """Wait until no process is in it."""
        if not self._is_populated:
            return
        with (self.folder / "cgroup.events").open("rb") as events, select.epoll() as changes:
            # A change is told as "exceptional" (POLLPRI), which no loop listens for; epoll does, and is readable then.
            changes.register(events, select.EPOLLPRI)
            while b"populated 1" in os.pread(events.fileno(), 1024, 0):
                await wait_readable(changes.fileno())
                changes.poll(0)

    @property
    def _is_populated(self) -> bool:
        return self._counts("cgroup.events").get("populated") == 1

    def _counts(self, file: str) -> dict[str, int]:
        """The figures by name in a file of lines such as `oom_kill 1`; none when there is no such file."""
        try:
            lines = (self.folder / file).read_text().splitlines()
        except OSError:
            return {}
        return {name: int(count) for name, count in (line.split() for line in lines)}

    def _number(self, file: str) -> int | None:
        try:
            return int((self.folder / file).read_text())
        except (OSError, ValueError):
            return None

    def _set_memory(self, most: str, *, swap: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # a kernel that does not count swap
            self._write("memory.swap.max", swap)
        self._write("memory.max", most)

    def _write(self, file: str, text: str) -> None:
        (self.folder / file).write_text(text)


class NoCgroup:
    """Stands where there is no group to be had: it bounds, counts and kills nothing."""

    path = ""
    memory = 0

    def set_memory_limit(self, _: int) -> bool:
        return False

    def clear_memory_limit(self) -> None: ...

    def oom_kill(self) -> None: ...

    def kill(self) -> None: ...

    async def remove(self) -> None: ...


def _remove_recursively(folder: Path) -> None:
    """Remove a group and those that a handler may have made in it."""
    for below in folder.iterdir():
        if below.is_dir():
            _remove_recursively(below)
    folder.rmdir()
