"""Outcomes on disk, from when they are worth it until the server has settled them: one file per attempt.

Runs in the parent, beside other processes with the same state directory.  Whoever writes or takes a file holds its
lock for as long as the entry is open, so no outcome is on two ways to the server at once; a lock ends with its holder
(flock(2)).  Everything here blocks on the disk and is called in threads; nothing here talks to a server.

Jobs can write to these folders, so each is opened anew for each step, and a link in the place of one is refused.

    spool/                  what waits for the server
    spool/undeliverable/    what the server refused as such, and what waited for too long: for the operator
    spool/damaged/          files that are not what was written
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
from supervisor.reporting import atomic_file
from supervisor.reporting import spool_format as spoolfile
from supervisor.reporting.atomic_file import UNFINISHED
from supervisor.reporting.spool_format import CorruptSpoolFile, Destination, SpoolRecord
from supervisor.status import SpoolStatus

ENDING = ".outcome"
ABANDONED_AFTER = 60.0
"""Seconds after which an unfinished file that nobody has locked has lost its writer, who locks it at once."""

Operation = Literal["write", "read"]

log = structlog.get_logger("spool")


class SpoolFolder(enum.Enum):
    """Where in the spool a file lies."""

    WAITING = "."
    UNDELIVERABLE = "undeliverable"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class SpoolEntry:
    """An outcome on disk that is ours alone until `close`; a `Blob` in it lives as long."""

    path: Path
    descriptor: int
    record: SpoolRecord
    folder: Callable[[], AbstractContextManager[Directory]] = field(repr=False)

    @property
    def outcome(self) -> Outcome:
        return self.record.outcome(self.descriptor)

    def remove(self) -> None:
        """It is settled: close it and delete the file, unless another has taken its place."""
        try:
            with self.folder() as folder:
                if folder.holds(self.path.name, self.descriptor):
                    folder.unlink(self.path.name)
        except FileNotFoundError:
            pass
        except OSError as error:  # the disk has become read-only, say; what is settled stays settled
            log.warning("a settled outcome stays on the disk", file=self.path.name, error=error.strerror)
        finally:
            self.close()

    def close(self) -> None:
        """Leave the file to whoever takes it next."""
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A file as one finds it without taking it; the note of a damaged one cannot be read."""

    path: Path
    spool_folder: SpoolFolder
    record: SpoolRecord | None
    size: int
    changed_at: float


class Spool:
    """The folder of one state directory.  What goes wrong in it is logged, and never ends a report."""

    def __init__(
        self, state_dir: Path, now: Callable[[], float] = time.time, *, state: Directory | None = None
    ) -> None:
        """`state` is the state directory, opened by root for a user that may not come there by its name."""
        self.folder = state_dir / "spool"
        self._state = state
        self._now = now
        self._troubles: dict[Operation, str] = {}  # of what failed when it was last tried

    @property
    def trouble(self) -> str | None:
        """Why it cannot be used: what went wrong, unless it has gone well since."""
        return self._troubles.get("write") or self._troubles.get("read")

    def write(self, destination: Destination, fence: Fence, action: str, outcome: Outcome) -> SpoolEntry | None:
        """Put an outcome on the disk, in place of an earlier one of the same attempt; None when that cannot be."""
        note = spoolfile.record_of(destination, fence, action, outcome, self._now())
        path = self.folder / file_name(destination, fence)
        try:
            self._prepare()
            with self._opened(SpoolFolder.WAITING) as folder:
                written = atomic_file.create(folder, path.name, lambda new: spoolfile.write(new, note, outcome))
            entry = self._entry(path, written, note)
        except OSError as error:
            self._failed("write", error)
            return None
        self._succeeded("write")
        return entry

    def waiting(self, destination: Destination) -> list[Path]:
        """What is to be sent to `destination`, oldest first; files that cannot be read are among them."""
        found = [
            each
            for each in self.find(SpoolFolder.WAITING)
            if each.record is None or each.record.destination == destination
        ]
        return [each.path for each in sorted(found, key=lambda each: each.changed_at)]

    def acquire(self, path: Path) -> SpoolEntry | None:
        """The outcome in a file, for us alone; None when it is gone, in other hands, or damaged and set aside."""
        try:
            descriptor = self._locked(path)
        except (FileNotFoundError, BlockingIOError):
            return None
        try:
            return self._entry(path, descriptor, spoolfile.verify(descriptor))
        except CorruptSpoolFile as damaged:
            log.error("a damaged file was set aside", file=path.name, reason=str(damaged))
            self._move(path, SpoolFolder.DAMAGED)
            os.close(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return None

    def read(self, path: Path) -> SpoolEntry:
        """The outcome in a file, in whosever hands it is, to be read and closed; raise `Damaged` or `OSError`.

        What is once written is never changed, only removed or replaced.
        """
        with self._opened(_shelf_of(path)) as folder, atomic_file.opened(folder, path.name) as descriptor:
            note = spoolfile.verify(descriptor)
            return self._entry(path, os.dup(descriptor), note)

    def is_locked(self, path: Path) -> bool:
        """Whether somebody has taken it; whoever wants it while we look will look again later."""
        try:
            os.close(self._locked(path))
        except OSError as error:
            return isinstance(error, BlockingIOError)
        return False

    def is_there(self, path: Path) -> bool:
        """True if anything has this name."""
        try:
            with self._opened(_shelf_of(path)) as folder:
                folder.status(path.name)
        except OSError:
            return False
        return True

    def is_damaged(self, path: Path) -> bool:
        """Whether what was there has been set aside."""
        return path.name in self._names(SpoolFolder.DAMAGED)

    def require_readable(self) -> None:
        """Raise `OSError`, with the folder as its file name, when outcomes in it cannot be listed."""
        for shelf in SpoolFolder:
            path = self.folder if shelf is SpoolFolder.WAITING else self.folder / shelf.value
            try:
                with self._opened(shelf) as folder:
                    folder.names()
            except FileNotFoundError:
                pass  # nothing was ever kept there
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error

    def discard(self, path: Path) -> None:
        """Delete a damaged file, which no process takes."""
        with contextlib.suppress(FileNotFoundError), self._opened(_shelf_of(path)) as folder:
            folder.unlink(path.name)

    def move_to_undeliverable(self, entry: SpoolEntry) -> None:
        """Close an entry that is not to be sent any more, and leave it to the operator."""
        self._move(entry.path, SpoolFolder.UNDELIVERABLE)
        entry.close()

    def keep_copy(self, entry: SpoolEntry) -> bool:
        """Leave the operator an entry that something else will take the place of; False when that cannot be."""
        try:
            with self._made(SpoolFolder.UNDELIVERABLE) as folder:
                atomic_file.link_or_copy(entry.descriptor, folder, entry.path.name)
        except OSError as error:
            self._failed("write", error)
            return False
        return True

    def find(self, *shelves: SpoolFolder) -> list[SpoolFile]:
        """What lies there; a folder that is not there is empty."""
        return [found for shelf in shelves for found in self._found(shelf)]

    def measure(self, now: float) -> SpoolStatus:
        """How much waits for the server."""
        found = self._statuses()
        oldest = min((each.st_mtime for each in found), default=None)
        return SpoolStatus(
            items=len(found),
            bytes=sum(each.st_size for each in found),
            oldest_age=None if oldest is None else max(0.0, now - oldest),
            trouble=self.trouble,
        )

    def sweep(self) -> None:
        """Delete what writers that were killed have left unfinished."""
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
    def _opened(self, shelf: SpoolFolder) -> Iterator[Directory]:
        with self._opened_state() as state, state.folder(self.folder.name) as waiting:
            if shelf is SpoolFolder.WAITING:
                yield waiting
                return
            with waiting.folder(shelf.value) as folder:
                yield folder

    @contextmanager
    def _made(self, shelf: SpoolFolder) -> Iterator[Directory]:
        with self._opened(SpoolFolder.WAITING) as waiting, waiting.make_folder(shelf.value) as folder:
            yield folder

    def _entry(self, path: Path, descriptor: int, note: SpoolRecord) -> SpoolEntry:
        return SpoolEntry(path, descriptor, note, partial(self._opened, _shelf_of(path)))

    def _locked(self, path: Path) -> int:
        with self._opened(_shelf_of(path)) as folder:
            return atomic_file.lock(folder, path.name)

    def _move(self, path: Path, shelf: SpoolFolder) -> None:
        try:
            with self._opened(_shelf_of(path)) as folder, self._made(shelf) as target:
                folder.rename(path.name, path.name, target)
        except OSError as error:
            self._failed("write", error)

    def _found(self, shelf: SpoolFolder) -> list[SpoolFile]:
        names = self._names(shelf)
        with contextlib.suppress(OSError), self._opened(shelf) as folder:
            return [found for name in names for found in _looked_at(folder, name, shelf)]
        return []

    def _statuses(self) -> list[os.stat_result]:
        names, found = self._names(SpoolFolder.WAITING), []
        with contextlib.suppress(OSError), self._opened(SpoolFolder.WAITING) as folder:
            for name in names:
                with contextlib.suppress(OSError):
                    found.append(folder.status(name))
        return found

    def _names(self, shelf: SpoolFolder, ending: str = ENDING) -> list[str]:
        try:
            with self._opened(shelf) as folder:
                found = [name for name in folder.names() if name.endswith(ending)]
        except FileNotFoundError:
            found = []
        except OSError as error:
            self._failed("read", error)
            return []
        self._succeeded("read")
        return found

    def _failed(self, deed: Operation, error: OSError) -> None:
        reason = error.strerror or str(error)
        # Once, not for every job: the disk stays full for a while.
        if not self._troubles:
            log.warning("the spool cannot be used: outcomes wait in memory only", folder=str(self.folder), error=reason)
        self._troubles[deed] = reason

    def _succeeded(self, deed: Operation) -> None:
        if self._troubles.pop(deed, None) is not None and not self._troubles:
            log.info("the spool can be used again")


def file_name(destination: Destination, fence: Fence) -> str:
    """The name of the file for one attempt: readable as far as it is safe, and no other attempt's."""
    digest = hashlib.sha256(msgspec.json.encode([destination, fence])).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9-]+", "_", fence.job_id)[:40]
    return f"{readable}-{fence.attempt}-{digest}{ENDING}"


def _shelf_of(path: Path) -> SpoolFolder:
    return next((shelf for shelf in SpoolFolder if shelf.value == path.parent.name), SpoolFolder.WAITING)


def _looked_at(folder: Directory, name: str, shelf: SpoolFolder) -> list[SpoolFile]:
    """What lies there; nothing if it is gone."""
    path = folder.path / name
    try:
        with atomic_file.opened(folder, name) as descriptor:
            status = os.fstat(descriptor)
            note = None
            with contextlib.suppress(CorruptSpoolFile):
                note = spoolfile.peek(descriptor)
            return [SpoolFile(path, shelf, note, status.st_size, status.st_mtime)]
    except FileNotFoundError:
        return []
    except OSError:  # a link, or another user's file: shown, and left alone
        return [SpoolFile(path, shelf, None, 0, 0.0)]
