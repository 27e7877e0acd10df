"""Storage of outcomes on disk until the server accepts or rejects them: one file per attempt.

Runs in the parent; other processes may use the same state directory.  The process that writes or acquires a file holds
its lock while the entry is open, so two processes never send one outcome at once.  The kernel releases the lock when
the process ends (flock(2)).  All methods block on the disk, so threads call them.  The spool has no network I/O.

Jobs can write to these folders.  Each step therefore opens its folder again, and refuses a symbolic link in its place.

    spool/                  outcomes that wait for the server
    spool/undeliverable/    outcomes that the server rejected or that grew too old: for the operator
    spool/damaged/          files that fail verification
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from supervisor.job import Fence, Outcome
from supervisor.linux.directory import Directory
from supervisor.reporting import atomic_file, spool_format
from supervisor.reporting.atomic_file import UNFINISHED
from supervisor.reporting.spool_format import CorruptSpoolFile, Destination, SpoolRecord
from supervisor.status import SpoolStatus

ENDING = ".outcome"
ABANDONED_AFTER = 60.0
"""Seconds after which an unlocked unfinished file has no writer: a writer locks its file at once."""

Operation = Literal["write", "read"]

log = structlog.get_logger("spool")


class SpoolFolder(enum.Enum):
    """Folder of a file in the spool."""

    WAITING = "."
    UNDELIVERABLE = "undeliverable"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class SpoolEntry:
    """A stored outcome, locked until `close`.  A `Blob` in it is valid until then."""

    path: Path
    descriptor: int
    record: SpoolRecord
    folder: Callable[[], AbstractContextManager[Directory]] = field(repr=False)

    @property
    def outcome(self) -> Outcome:
        return self.record.outcome(self.descriptor)

    def remove(self) -> None:
        """Close the entry and delete its file, unless a newer file has replaced it."""
        try:
            with self.folder() as folder:
                if folder.holds(self.path.name, self.descriptor):
                    folder.unlink(self.path.name)
        except FileNotFoundError:
            pass
        except OSError as error:  # for example, the disk became read-only; the outcome is delivered all the same
            log.warning("delivered outcome not removed from the disk", file=self.path.name, error=error.strerror)
        finally:
            self.close()

    def close(self) -> None:
        """Release the lock and keep the file."""
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A file as found without locking it; `record` is None for a damaged file."""

    path: Path
    spool_folder: SpoolFolder
    record: SpoolRecord | None
    size: int
    changed_at: float


class Spool:
    """The spool folder of one state directory.  Disk errors are logged and never end a report."""

    def __init__(
        self, state_dir: Path, now: Callable[[], float] = time.time, *, state: Directory | None = None
    ) -> None:
        """`state` is the state directory opened by root, for a user without access to its path."""
        self.folder = state_dir / "spool"
        self._state = state
        self._now = now
        self._troubles: dict[Operation, str] = {}  # operations whose last try failed

    @property
    def trouble(self) -> str | None:
        """The current disk error; None when the last operations succeeded."""
        return self._troubles.get("write") or self._troubles.get("read")

    def write(self, destination: Destination, fence: Fence, action: str, outcome: Outcome) -> SpoolEntry | None:
        """Store an outcome in place of an earlier one of the same attempt; return None when the disk fails."""
        record = spool_format.record_of(destination, fence, action, outcome, self._now())
        path = self.folder / file_name(destination, fence)
        try:
            self._prepare()
            with self._opened(SpoolFolder.WAITING) as folder:
                written = atomic_file.create(folder, path.name, lambda new: spool_format.write(new, record, outcome))
            entry = self._entry(path, written, record)
        except OSError as error:
            self._failed("write", error)
            return None
        self._succeeded("write")
        return entry

    def waiting(self, destination: Destination) -> list[Path]:
        """Return the files for `destination`, oldest first, including files that cannot be read."""
        found = [
            each
            for each in self.find(SpoolFolder.WAITING)
            if each.record is None or each.record.destination == destination
        ]
        return [each.path for each in sorted(found, key=lambda each: each.changed_at)]

    def acquire(self, path: Path) -> SpoolEntry | None:
        """Lock and verify a file; return None when it is gone, locked elsewhere, or damaged and moved away."""
        try:
            descriptor = self._locked(path)
        except (FileNotFoundError, BlockingIOError):
            return None
        try:
            return self._entry(path, descriptor, spool_format.verify(descriptor))
        except CorruptSpoolFile as damaged:
            log.error("damaged spool file set aside", file=path.name, reason=str(damaged))
            self._move(path, SpoolFolder.DAMAGED)
            os.close(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return None

    def read(self, path: Path) -> SpoolEntry:
        """Verify a file without its lock, and return the outcome; raise `CorruptSpoolFile` or `OSError`.

        A finished file never changes; it is only removed or replaced.
        """
        with self._opened(_folder_of(path)) as folder, atomic_file.opened(folder, path.name) as descriptor:
            record = spool_format.verify(descriptor)
            return self._entry(path, os.dup(descriptor), record)

    def is_locked(self, path: Path) -> bool:
        """True if a process holds the lock.  The check takes the lock for a moment; other processes retry later."""
        try:
            os.close(self._locked(path))
        except OSError as error:
            return isinstance(error, BlockingIOError)
        return False

    def is_there(self, path: Path) -> bool:
        """True if a file of this name exists."""
        try:
            with self._opened(_folder_of(path)) as folder:
                folder.status(path.name)
        except OSError:
            return False
        return True

    def is_damaged(self, path: Path) -> bool:
        """True if the file has been moved to `damaged`."""
        return path.name in self._names(SpoolFolder.DAMAGED)

    def require_readable(self) -> None:
        """Raise `OSError` with the folder as file name when its outcomes cannot be listed."""
        for spool_folder in SpoolFolder:
            path = self.folder if spool_folder is SpoolFolder.WAITING else self.folder / spool_folder.value
            try:
                with self._opened(spool_folder) as folder:
                    folder.names()
            except FileNotFoundError:
                pass  # no outcome was ever stored there
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error

    def discard(self, path: Path) -> None:
        """Delete a damaged file, which no process sends."""
        with contextlib.suppress(FileNotFoundError), self._opened(_folder_of(path)) as folder:
            folder.unlink(path.name)

    def move_to_undeliverable(self, entry: SpoolEntry) -> None:
        """Move the file of an entry to `undeliverable` for the operator, and close the entry."""
        self._move(entry.path, SpoolFolder.UNDELIVERABLE)
        entry.close()

    def keep_copy(self, entry: SpoolEntry) -> bool:
        """Keep a copy in `undeliverable` before the entry is replaced; return False when the disk fails."""
        try:
            with self._made(SpoolFolder.UNDELIVERABLE) as folder:
                atomic_file.link_or_copy(entry.descriptor, folder, entry.path.name)
        except OSError as error:
            self._failed("write", error)
            return False
        return True

    def find(self, *folders: SpoolFolder) -> list[SpoolFile]:
        """Return the files in these folders; a missing folder is empty."""
        return [found for each in folders for found in self._found(each)]

    def measure(self, now: float) -> SpoolStatus:
        """Return count, size and age of the outcomes that wait for the server."""
        found = self._statuses()
        oldest = min((each.st_mtime for each in found), default=None)
        return SpoolStatus(
            items=len(found),
            bytes=sum(each.st_size for each in found),
            oldest_age=None if oldest is None else max(0.0, now - oldest),
            trouble=self.trouble,
        )

    def sweep(self) -> None:
        """Delete unfinished files of writers that were killed."""
        names = self._names(SpoolFolder.WAITING, UNFINISHED)
        with contextlib.suppress(OSError), self._opened(SpoolFolder.WAITING) as folder:
            for name in names:
                with contextlib.suppress(OSError):
                    if self._now() - folder.status(name).st_mtime > ABANDONED_AFTER:
                        os.close(atomic_file.lock(folder, name))
                        folder.unlink(name)

    def _prepare(self) -> None:
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._opened_state() as state:
            state.make_folder(self.folder.name).close()

    def _opened_state(self) -> Directory:
        return Directory.open(self.folder.parent) if self._state is None else self._state.folder(".")

    @contextmanager
    def _opened(self, spool_folder: SpoolFolder) -> Iterator[Directory]:
        with self._opened_state() as state, state.folder(self.folder.name) as waiting:
            if spool_folder is SpoolFolder.WAITING:
                yield waiting
                return
            with waiting.folder(spool_folder.value) as folder:
                yield folder

    @contextmanager
    def _made(self, spool_folder: SpoolFolder) -> Iterator[Directory]:
        with self._opened(SpoolFolder.WAITING) as waiting, waiting.make_folder(spool_folder.value) as folder:
            yield folder

    def _entry(self, path: Path, descriptor: int, record: SpoolRecord) -> SpoolEntry:
        return SpoolEntry(path, descriptor, record, partial(self._opened, _folder_of(path)))

    def _locked(self, path: Path) -> int:
        with self._opened(_folder_of(path)) as folder:
            return atomic_file.lock(folder, path.name)

    def _move(self, path: Path, spool_folder: SpoolFolder) -> None:
        try:
            with self._opened(_folder_of(path)) as folder, self._made(spool_folder) as target:
                folder.rename(path.name, path.name, target)
        except OSError as error:
            self._failed("write", error)

    def _found(self, spool_folder: SpoolFolder) -> list[SpoolFile]:
        names = self._names(spool_folder)
        with contextlib.suppress(OSError), self._opened(spool_folder) as folder:
            return [found for name in names for found in _inspect(folder, name, spool_folder)]
        return []

    def _statuses(self) -> list[os.stat_result]:
        names, found = self._names(SpoolFolder.WAITING), []
        with contextlib.suppress(OSError), self._opened(SpoolFolder.WAITING) as folder:
            for name in names:
                with contextlib.suppress(OSError):
                    found.append(folder.status(name))
        return found

    def _names(self, spool_folder: SpoolFolder, ending: str = ENDING) -> list[str]:
        try:
            with self._opened(spool_folder) as folder:
                found = [name for name in folder.names() if name.endswith(ending)]
        except FileNotFoundError:
            found = []
        except OSError as error:
            self._failed("read", error)
            return []
        self._succeeded("read")
        return found

    def _failed(self, operation: Operation, error: OSError) -> None:
        reason = error.strerror or str(error)
        # Log once, not for every job: a disk stays full for a while.
        if not self._troubles:
            log.warning("spool unavailable and outcomes kept in memory only", folder=str(self.folder), error=reason)
        self._troubles[operation] = reason

    def _succeeded(self, operation: Operation) -> None:
        if self._troubles.pop(operation, None) is not None and not self._troubles:
            log.info("spool available again")


def file_name(destination: Destination, fence: Fence) -> str:
    """Return the file name of one attempt: the job id in safe characters, and a digest that makes it unique."""
    digest = hashlib.sha256(msgspec.json.encode([destination, fence])).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9-]+", "_", fence.job_id)[:40]
    return f"{readable}-{fence.attempt}-{digest}{ENDING}"


def _folder_of(path: Path) -> SpoolFolder:
    return next(
        (spool_folder for spool_folder in SpoolFolder if spool_folder.value == path.parent.name), SpoolFolder.WAITING
    )


def _inspect(folder: Directory, name: str, spool_folder: SpoolFolder) -> list[SpoolFile]:
    """Return the file of this name as a list of one; an empty list if it is gone."""
    path = folder.path / name
    try:
        with atomic_file.opened(folder, name) as descriptor:
            status = os.fstat(descriptor)
            record = None
            with contextlib.suppress(CorruptSpoolFile):
                record = spool_format.peek(descriptor)
            return [SpoolFile(path, spool_folder, record, status.st_size, status.st_mtime)]
    except FileNotFoundError:
        return []
    except OSError:  # a link, or another user's file: listed but never touched
        return [SpoolFile(path, spool_folder, None, 0, 0.0)]
