"""Folders that are opened once; names in them are resolved relative to the open folder (openat(2)).

A job runs as the user of its supervisor, so it can put a link in the place of any name in the state directory, between
any two steps.  Links in an open folder are therefore refused, never followed.  Used by the parent and by commands.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC
_SEARCH_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MAX_LINKS = 40
"""Links that are followed in one path, as by the kernel (path_resolution(7))."""


class Directory:
    """An open folder; `with` closes it.  `path` is for messages, and for paths that identify files."""

    __slots__ = ("descriptor", "path")

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def open(cls, path: Path) -> Directory:
        """Open the folder of an operator, who may have named it by a link; raise `OSError` for other users' links."""
        with cls.open_without_links(resolved(path)) as found:
            return cls(path, os.open(".", _OPEN_FOLDER, dir_fd=found.descriptor))

    @classmethod
    def open_without_links(cls, path: Path) -> Directory:
        """Open an absolute path; raise `OSError` when any part of it is a link.  Its content cannot be listed."""
        found = cls(Path("/"), os.open("/", _SEARCH_FOLDER))
        for part in path.parts[1:]:
            with found:
                found = found._entered(part, _SEARCH_FOLDER)
        return found

    def folder(self, name: str) -> Directory:
        """Open a folder in this one."""
        return self._entered(name, _OPEN_FOLDER | os.O_NOFOLLOW)

    def make_folder(self, name: str) -> Directory:
        """Open a folder in this one; make it, for this user alone, when nothing is there."""
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self.descriptor)
        return self.folder(name)

    def open_file(self, name: str, flags: int) -> int:
        """Return a descriptor of a file, which the caller closes.  A pipe or a device is never waited for."""
        safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(name, flags | safe, 0o600, dir_fd=self.descriptor)

    def names(self) -> list[str]:
        """Return what is in the folder, sorted."""
        return sorted(os.listdir(self.descriptor))  # noqa: PTH208 - a path could lead elsewhere by now

    def status(self, name: str) -> os.stat_result:
        """Return the status of what is there; that of a link itself."""
        return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)

    def holds(self, name: str, descriptor: int) -> bool:
        """True if `name` is the open file `descriptor`; raise `FileNotFoundError` when nothing is there."""
        return os.path.samestat(self.status(name), os.fstat(descriptor))

    def rename(self, name: str, other: str, into: Directory | None = None) -> None:
        os.rename(name, other, src_dir_fd=self.descriptor, dst_dir_fd=(into or self).descriptor)

    def link(self, descriptor: int, name: str) -> None:
        """Make `name` one more name of the open file `descriptor`, whatever its other names lead to by now."""
        # linkat(2): through /proc, since AT_EMPTY_PATH is for CAP_DAC_READ_SEARCH only.
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=self.descriptor, follow_symlinks=True)

    def unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self.descriptor)

    def sync(self) -> None:
        """Have the names on the disk."""
        os.fsync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)

    def _entered(self, name: str, flags: int) -> Directory:
        path = self.path / name
        try:
            return Directory(path, os.open(name, flags, dir_fd=self.descriptor))
        except NotADirectoryError:  # open(2) says so of a link, too
            if stat.S_ISLNK(self.status(name).st_mode):
                raise OSError(errno.ELOOP, f"{path} is a link, and must be a folder") from None
            raise

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Directory {self.path}>"


def resolved(path: Path) -> Path:
    """Follow the links of root and of this user in `path`; raise `OSError` at a link that another user could aim."""
    found, parts, links = Path("/"), list(path.absolute().parts[:0:-1]), 0
    while parts:
        part = parts.pop()
        if part == "..":
            found = found.parent
            continue
        status = os.lstat(found / part)
        if not stat.S_ISLNK(status.st_mode):
            found /= part
            continue
        links += 1
        if status.st_uid not in (0, os.geteuid()):
            raise OSError(errno.ELOOP, f"{found / part} is a link of uid {status.st_uid}")
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = (found / part).readlink()
        if target.is_absolute():
            found = Path("/")
        parts.extend(part for part in reversed(target.parts) if part != "/")
    return found
