"""Outcomes on disk, from when they are worth it until the server has settled them: one file per attempt.

Runs in the parent, beside other processes with the same state directory.  Whoever writes or takes a file holds its
lock for as long as the entry is open, so no outcome is on two ways to the server at once; a lock ends with its holder
(flock(2)).  Everything here blocks on the disk and is called in threads; nothing here talks to a server.

    spool/                  what waits for the server
    spool/undeliverable/    what the server refused as such, and what waited for too long: for the operator
    spool/damaged/          files that are not what was written
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from supervisor.job import Fence, Outcome
from supervisor.reporting import spoolfile
from supervisor.reporting.spoolfile import Damaged, Destination, Note
from supervisor.status import SpoolStatus

ENDING = ".outcome"
UNFINISHED = ".unfinished"
ABANDONED_AFTER = 60.0
"""Seconds after which an unfinished file that nobody has locked has lost its writer, who locks it at once."""

Deed = Literal["write", "read"]

log = structlog.get_logger("spool")


class Shelf(enum.Enum):
    """Where in the spool a file lies."""

    WAITING = "."
    UNDELIVERABLE = "undeliverable"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Entry:
    """An outcome on disk that is ours alone until `close`; a `Blob` in it lives as long."""

    path: Path
    descriptor: int
    note: Note

    @property
    def outcome(self) -> Outcome:
        return self.note.outcome(self.descriptor)

    def remove(self) -> None:
        """It is settled: close it and delete the file, unless another has taken its place."""
        try:
            if _is_at(self.path, self.descriptor):
                self.path.unlink()
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
class Found:
    """A file as one finds it without taking it; the note of a damaged one cannot be read."""

    path: Path
    shelf: Shelf
    note: Note | None
    size: int
    changed_at: float


class Spool:
    """The folder of one state directory.  What goes wrong in it is logged, and never ends a report."""

    def __init__(self, state_dir: Path, now: Callable[[], float] = time.time) -> None:
        self.folder = state_dir / "spool"
        self._now = now
        self._troubles: dict[Deed, str] = {}  # of what failed when it was last tried

    @property
    def trouble(self) -> str | None:
        """Why it cannot be used: what went wrong, unless it has gone well since."""
        return self._troubles.get("write") or self._troubles.get("read")

    def keep(self, destination: Destination, fence: Fence, action: str, outcome: Outcome) -> Entry | None:
        """Put an outcome on the disk, in place of an earlier one of the same attempt; None when that cannot be."""
        note = spoolfile.note_of(destination, fence, action, outcome, self._now())
        path = self.folder / file_name(destination, fence)
        try:
            self._prepare()
            entry = Entry(path, _write(path, note, outcome), note)
        except OSError as error:
            self._failed("write", error)
            return None
        self._succeeded("write")
        return entry

    def waiting(self, destination: Destination) -> list[Path]:
        """What is to be sent to `destination`, oldest first; files that cannot be read are among them."""
        found = [each for each in self.find(Shelf.WAITING) if each.note is None or each.note.destination == destination]
        return [each.path for each in sorted(found, key=lambda each: each.changed_at)]

    def take(self, path: Path) -> Entry | None:
        """The outcome in a file, for us alone; None when it is gone, in other hands, or damaged and set aside."""
        try:
            descriptor = _locked(path)
        except (FileNotFoundError, BlockingIOError):
            return None
        try:
            return Entry(path, descriptor, spoolfile.verify(descriptor))
        except Damaged as damaged:
            log.error("a damaged file was set aside", file=path.name, reason=str(damaged))
            self._move(path, Shelf.DAMAGED)
            os.close(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return None

    def look(self, path: Path) -> Entry:
        """The outcome in a file, in whosever hands it is, to be read and closed; raise `Damaged` or `OSError`.

        What is once written is never changed, only removed or replaced.
        """
        with _opened(path) as descriptor:
            note = spoolfile.verify(descriptor)
            return Entry(path, os.dup(descriptor), note)

    def is_in_hands(self, path: Path) -> bool:
        """Whether somebody has taken it; whoever wants it while we look will look again later."""
        try:
            os.close(_locked(path))
        except OSError as error:
            return isinstance(error, BlockingIOError)
        return False

    def is_damaged(self, path: Path) -> bool:
        """Whether what was there has been set aside."""
        return any(each.name == path.name for each in self._files(Shelf.DAMAGED))

    def shelve(self, entry: Entry) -> None:
        """Close an entry that is not to be sent any more, and leave it to the operator."""
        self._move(entry.path, Shelf.UNDELIVERABLE)
        entry.close()

    def keep_copy(self, entry: Entry) -> bool:
        """Leave the operator an entry that something else will take the place of; False when that cannot be."""
        try:
            _link_or_copy(entry.path, self._shelf(Shelf.UNDELIVERABLE) / entry.path.name)
        except OSError as error:
            self._failed("write", error)
            return False
        return True

    def find(self, *shelves: Shelf) -> list[Found]:
        """What lies there; a folder that is not there is empty."""
        return [found for shelf in shelves for path in self._files(shelf) for found in _looked_at(path, shelf)]

    def measure(self, now: float) -> SpoolStatus:
        """How much waits for the server."""
        found = []
        for path in self._files(Shelf.WAITING):
            with contextlib.suppress(OSError):
                found.append(path.stat())
        oldest = min((each.st_mtime for each in found), default=None)
        return SpoolStatus(
            items=len(found),
            bytes=sum(each.st_size for each in found),
            oldest_age=None if oldest is None else max(0.0, now - oldest),
            trouble=self.trouble,
        )

    def sweep(self) -> None:
        """Delete what writers that were killed have left unfinished."""
        for path in self._files(Shelf.WAITING, UNFINISHED):
            with contextlib.suppress(OSError):
                if self._now() - path.stat().st_mtime > ABANDONED_AFTER:
                    os.close(_locked(path))
                    path.unlink()

    def _prepare(self) -> None:
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(self.folder)

    def _shelf(self, shelf: Shelf) -> Path:
        folder = self.folder / shelf.value
        _make(folder)
        return folder

    def _move(self, path: Path, shelf: Shelf) -> None:
        try:
            path.rename(self._shelf(shelf) / path.name)
        except OSError as error:
            self._failed("write", error)

    def _files(self, shelf: Shelf, ending: str = ENDING) -> Iterable[Path]:
        try:
            found = sorted(path for path in (self.folder / shelf.value).iterdir() if path.name.endswith(ending))
        except FileNotFoundError:
            found = []
        except OSError as error:
            self._failed("read", error)
            return ()
        self._succeeded("read")
        return found

    def _failed(self, deed: Deed, error: OSError) -> None:
        reason = error.strerror or str(error)
        # Once, not for every job: the disk stays full for a while.
        if not self._troubles:
            log.warning("the spool cannot be used: outcomes wait in memory only", folder=str(self.folder), error=reason)
        self._troubles[deed] = reason

    def _succeeded(self, deed: Deed) -> None:
        if self._troubles.pop(deed, None) is not None and not self._troubles:
            log.info("the spool can be used again")


def file_name(destination: Destination, fence: Fence) -> str:
    """The name of the file for one attempt: readable as far as it is safe, and no other attempt's."""
    digest = hashlib.sha256(msgspec.json.encode([destination, fence])).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9-]+", "_", fence.job_id)[:40]
    return f"{readable}-{fence.attempt}-{digest}{ENDING}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    _hand_over(folder, folder.parent)


def _hand_over(made: Path | int, folder: Path) -> None:
    """Let what was just made belong to the owner of `folder`: root may replay by hand what a service has to read."""
    owner = folder.stat()
    if owner.st_uid != os.geteuid():
        with contextlib.suppress(PermissionError):
            os.chown(made, owner.st_uid, owner.st_gid)


def _write(path: Path, note: Note, outcome: Outcome) -> int:
    """Have the file whole or not at all, whenever we are killed; return its descriptor, which holds its lock."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _hand_over(descriptor, path.parent)
        spoolfile.write(descriptor, note, outcome)
        unfinished.rename(path)
    except BaseException:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    with contextlib.suppress(OSError):  # the file is there; at worst it does not survive a loss of power
        _sync(path.parent)
    return descriptor


def _link_or_copy(path: Path, other: Path) -> None:
    """Have the file at `other` as well, whole or not at all; what is there already is left."""
    try:
        os.link(path, other)
    except FileExistsError:
        return
    except OSError:  # some file systems have no second name for a file
        unfinished = other.with_name(f".{other.name}.{secrets.token_hex(4)}{UNFINISHED}")
        try:
            shutil.copyfile(path, unfinished)
            unfinished.chmod(0o600)
            _hand_over(unfinished, other.parent)
            unfinished.rename(other)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A descriptor that holds the lock of the file at `path`; raise `BlockingIOError` when it is in other hands."""
    with _opened(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had the lock before us may have removed or replaced the file.
        if not _is_at(path, descriptor):
            raise FileNotFoundError(path)
        return os.dup(descriptor)  # the lock belongs to the open file, and stays with the last of its descriptors


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    # A pipe or a link in the folder is not ours, and must neither block nor lead us elsewhere.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))


def _looked_at(path: Path, shelf: Shelf) -> list[Found]:
    """What lies at `path`; nothing if it is gone."""
    try:
        with _opened(path) as descriptor:
            status = os.fstat(descriptor)
            note = None
            with contextlib.suppress(Damaged):
                note = spoolfile.peek(descriptor)
            return [Found(path, shelf, note, status.st_size, status.st_mtime)]
    except FileNotFoundError:
        return []
    except OSError:  # a link, or somebody else's file: shown, and left alone
        return [Found(path, shelf, None, 0, 0.0)]
