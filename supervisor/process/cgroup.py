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
"""Seconds to wait until a killed group is empty; only an unkillable process takes longer."""


class Cgroup:
    """A folder in the tree of control groups."""

    def __init__(self, folder: Path, *, counts_memory: bool) -> None:
        """Use an existing group; `counts_memory`: its memory controller is enabled."""
        self.folder = folder
        self._counts_memory = counts_memory
        self._limit: int | None = None

    def __repr__(self) -> str:
        return f"<Cgroup {self.folder.name}>"

    @property
    def path(self) -> str:
        return str(self.folder)

    def dies_as_one(self) -> None:
        """Kill all processes of the group when memory runs out: a job cannot go on without one of them."""
        if self._counts_memory:
            self._write("memory.oom.group", "1")

    def set_process_limit(self, most: int) -> None:
        """Limit the number of processes and threads to `most`."""
        self._write("pids.max", str(most))

    def set_memory_limit(self, limit: int) -> bool:
        """Let the kernel kill the group above `limit` bytes, without swap; return False when it cannot."""
        if self._counts_memory:
            self._limit = limit
            self._set_memory(str(limit), swap="0")
        return self._counts_memory

    def clear_memory_limit(self) -> None:
        """Remove the memory limit."""
        if self._limit is not None:
            self._limit = None
            self._set_memory("max", swap="max")

    @property
    def memory(self) -> int:
        """Bytes in use, including the page cache."""
        return self._number("memory.current") or 0

    def oom_kill(self) -> OomKill | None:
        """Return the details of an OOM kill; None when there was none."""
        counts = self._counts("memory.events")
        if not counts.get("oom_kill"):
            return None
        # `oom` counts hits of the group's own limit; it is 0 when an ancestor's limit or the host is the cause.
        limit = self._limit if counts.get("oom") else None
        peak = self._number("memory.peak")  # Linux 5.19; covers the child's whole life, so possibly an earlier job
        return OomKill(limit, peak if limit is None else min(peak or limit, limit))

    def kill(self) -> None:
        """Send SIGKILL to all processes of the group at once, including those being forked."""
        with contextlib.suppress(OSError):  # before Linux 5.14, or the group is removed already
            self._write("cgroup.kill", "1")

    async def remove(self) -> None:
        """Remove the group once its killed processes have exited."""
        try:
            async with asyncio.timeout(CGROUP_EMPTY_TIMEOUT):
                await self._empty()
            _remove_recursively(self.folder)
        except FileNotFoundError:
            pass
        except (TimeoutError, OSError) as error:
            log.warning("a control group cannot be removed", folder=str(self.folder), error=str(error) or "not empty")

    async def _empty(self) -> None:
        """Wait until the group is empty."""
        if not self._is_populated:
            return
        with (self.folder / "cgroup.events").open("rb") as events, select.epoll() as changes:
            # The kernel signals a change as POLLPRI, which event loops lack; an epoll descriptor turns readable.
            changes.register(events, select.EPOLLPRI)
            while b"populated 1" in os.pread(events.fileno(), 1024, 0):
                await wait_readable(changes.fileno())
                changes.poll(0)

    @property
    def _is_populated(self) -> bool:
        return self._counts("cgroup.events").get("populated") == 1

    def _counts(self, file: str) -> dict[str, int]:
        """Return the counters of a file with lines such as `oom_kill 1`; empty when there is no such file."""
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
    """Null object without a control group: limits, counts and kills nothing."""

    path = ""
    memory = 0

    def set_memory_limit(self, _: int) -> bool:
        return False

    def clear_memory_limit(self) -> None: ...

    def oom_kill(self) -> None: ...

    def kill(self) -> None: ...

    async def remove(self) -> None: ...


def _remove_recursively(folder: Path) -> None:
    """Remove a group and the groups that a handler may have created in it."""
    for below in folder.iterdir():
        if below.is_dir():
            _remove_recursively(below)
    folder.rmdir()
