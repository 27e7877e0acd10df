"""Shared memory of a killed job: POSIX segments (shm_overview(7)) and System V ones (sysvipc(7)).

A segment lives until it is removed, and a job that is killed removes nothing.  So the parent looks what the job's
processes have mapped before it kills them.  Afterwards it removes what the job made and no process holds any more.
Both may wait for the kernel, and run in a thread of the parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from supervisor.linux import syscalls as kernel
from supervisor.process.usage import descendants

FOLDER = "/dev/shm"  # noqa: S108 - no file is made there
MAPS_TIMEOUT = 0.1
"""Seconds that a kill waits for a look at what the job has mapped; it takes a millisecond."""
SYSTEM_V_LIST = "/proc/sysvipc/shm"
"""A line of headers, and a line a segment (proc_sysvipc(5))."""
MAX_HEADER_BYTES = 4096
MAX_PROCESSES = 256
"""Processes of a job that are looked at."""
MAX_MAPS_BYTES = 4 * 1024 * 1024
"""Bytes of a process' list of mappings that are read: some ten thousand lines."""
CLOCK_SLACK = 0.1
"""Seconds that a file's time may be behind: the kernel takes it from its last tick."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A POSIX segment: its file, and that file's identity."""

    path: str
    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Mapped:
    """What the processes of a job had mapped."""

    segments: frozenset[Segment] = frozenset()
    system_v: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.segments or self.system_v)


NOTHING = Mapped()


class JobSegments:
    """The shared memory of a child's job, from the job's start to what is left of it."""

    def __init__(self) -> None:
        self._mapped = NOTHING
        self._began_at = 0.0  # by the wall clock, as files have it

    def begin(self) -> None:
        """A job begins."""
        self._began_at = time.time()

    def may_exist(self) -> bool:
        """True if some process of this user made a segment since the job began: else a kill need not wait for a look.

        Takes some 20 µs where there are few segments, and never waits: these files are in memory.
        """
        try:
            return _was_file_made(self._began_at) or _has_system_v()
        except OSError:  # no descriptor is left
            return False

    async def look(self, pid: int) -> None:
        """Look what the job has mapped, for `MAPS_TIMEOUT` at most: a process that waits for a disk may not tell."""
        # RuntimeError: there is no thread to be had; OSError: no descriptor.
        with contextlib.suppress(TimeoutError, RuntimeError, OSError):
            async with asyncio.timeout(MAPS_TIMEOUT):
                self._mapped = await asyncio.to_thread(mapped_by, pid)

    async def remove(self) -> int:
        """Remove what was seen, once the job's processes are gone; return how many bytes."""
        mapped, self._mapped = self._mapped, NOTHING
        if mapped:
            with contextlib.suppress(RuntimeError):
                return await asyncio.to_thread(remove, mapped, self._began_at)
        return 0


def _was_file_made(since: float) -> bool:
    user = os.geteuid()
    with os.scandir(FOLDER) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if status.st_uid == user and status.st_ctime >= since - CLOCK_SLACK:
                    return True
    return False


def _has_system_v() -> bool:
    with open(SYSTEM_V_LIST, "rb") as file:
        return file.read(MAX_HEADER_BYTES).count(b"\n") > 1


def mapped_by(pid: int) -> Mapped:
    """Return what `pid` and its descendants have mapped now; nothing of those that are gone."""
    segments: set[Segment] = set()
    system_v: set[int] = set()
    for each in [pid, *descendants(pid)][:MAX_PROCESSES]:
        for segment in segments_in(_maps(each)):
            if isinstance(segment, Segment):
                segments.add(segment)
            else:
                system_v.add(segment)
    return Mapped(frozenset(segments), frozenset(system_v))


def segments_in(maps: str) -> Iterator[Segment | int]:
    """The POSIX segments and the ids of System V ones in a list of mappings (proc_pid_maps(5))."""
    for line in maps.splitlines():
        if FOLDER not in line and "/SYSV" not in line:
            continue
        with contextlib.suppress(ValueError):  # the last line may be cut
            _, _, _, device, inode, path = line.split(maxsplit=5)
            major, minor = (int(part, 16) for part in device.split(":"))
            if path.startswith("/SYSV"):
                yield int(inode)
            elif path.startswith(f"{FOLDER}/") and not path.endswith(" (deleted)"):
                yield Segment(path.replace("\\012", "\n"), os.makedev(major, minor), int(inode))


def remove(mapped: Mapped, since: float) -> int:
    """Remove what was made after `since` (seconds since 1970) and is not held any more; return how many bytes."""
    removed = 0
    for segment in mapped.segments:
        with contextlib.suppress(OSError):  # gone, another user's, or in use
            removed += _remove(segment, since)
    if mapped.system_v:
        removed += sum(_remove_system_v(mapped.system_v, since))
    return removed


def _remove(segment: Segment, since: float) -> int:
    descriptor = os.open(segment.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not _is_the_jobs(status, segment, since):
            return 0
        # Granted only if no other process has the file open or mapped, in any namespace (fcntl(2), "Leases").  One that
        # opens it meanwhile waits until we close it; the signal for that would end us, were it not ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        if not os.path.samestat(os.lstat(segment.path), status):
            return 0
        Path(segment.path).unlink()
        return status.st_size
    finally:
        os.close(descriptor)


def _is_the_jobs(status: os.stat_result, segment: Segment, since: float) -> bool:
    """True if it is the file that was mapped, of this user, and was not there before the job."""
    return (
        stat.S_ISREG(status.st_mode)
        and (status.st_dev, status.st_ino) == (segment.device, segment.inode)
        and status.st_uid == os.geteuid()
        and status.st_ctime >= since - CLOCK_SLACK
    )


def _remove_system_v(ids: frozenset[int], since: float) -> Iterator[int]:
    try:
        lines = Path(SYSTEM_V_LIST).read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = list(map(int, line.split()))
        shmid, size, attached, uid, changed_at = (fields[column] for column in (1, 3, 6, 7, 13))
        # Its time is in whole seconds.
        if shmid in ids and attached == 0 and uid == os.geteuid() and changed_at >= int(since - CLOCK_SLACK):
            with contextlib.suppress(OSError):
                kernel.remove_system_v_segment(shmid)
                yield size


def _maps(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            return file.read(MAX_MAPS_BYTES).decode("utf-8", "surrogateescape")
    except OSError:
        return ""
