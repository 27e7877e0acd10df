"""Open folders: names are resolved relative to the descriptor of the folder (openat(2)).

A job runs as the user of the supervisor, so at any moment it can replace a name in the state directory by a link.
Links in an open folder are therefore rejected, never followed.  Used by the parent and by commands.
Tested by tests/reporting/test_spool.py and tests/linux/test_remove_tree.py.
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
"""Links that are followed in one path: the limit of the kernel (path_resolution(7))."""


class Directory:
    """An open folder; `with` closes it.  `path` only serves messages and the identification of files."""

    __slots__ = ("descriptor", "path")

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def open(cls, path: Path) -> Directory:
        """Open a folder named by the operator, following links; raise `OSError` for links of other users."""
        with cls.open_without_links(resolved(path)) as found:
            return cls(path, os.open(".", _OPEN_FOLDER, dir_fd=found.descriptor))

    @classmethod
    def open_without_links(cls, path: Path) -> Directory:
        """Open an absolute path; raise `OSError` if any part of it is a link.  The folder cannot be listed."""
        found = cls(Path("/"), os.open("/", _SEARCH_FOLDER))
        for part in path.parts[1:]:
            with found:
                found = found._entered(part, _SEARCH_FOLDER)
        return found

    def folder(self, name: str) -> Directory:
        """Open a folder in this one."""
        return self._entered(name, _OPEN_FOLDER | os.O_NOFOLLOW)

    def make_folder(self, name: str) -> Directory:
        """Open a folder in this one; create it with mode 0700 if it does not exist."""
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self.descriptor)
        return self.folder(name)

    def open_file(self, name: str, flags: int) -> int:
        """Return a descriptor of a file, which the caller closes.  The open never blocks, not even for a pipe."""
        safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(name, flags | safe, 0o600, dir_fd=self.descriptor)

    def names(self) -> list[str]:
        """Return the names in the folder, sorted."""
        return sorted(os.listdir(self.descriptor))  # noqa: PTH208 - the path may now be another folder

    def status(self, name: str) -> os.stat_result:
        """Return the status of the entry `name`; of a link, not of its target."""
        return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)

    def holds(self, name: str, descriptor: int) -> bool:
        """True if `name` is the open file `descriptor`; raise `FileNotFoundError` if there is no such name."""
        return os.path.samestat(self.status(name), os.fstat(descriptor))

    def rename(self, name: str, other: str, into: Directory | None = None) -> None:
        os.rename(name, other, src_dir_fd=self.descriptor, dst_dir_fd=(into or self).descriptor)

    def link(self, descriptor: int, name: str) -> None:
        """Add `name` as a hard link to the open file `descriptor`, even if its other names were replaced."""
        # linkat(2) through /proc: AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH.
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=self.descriptor, follow_symlinks=True)

    def unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self.descriptor)

    def sync(self) -> None:
        """Write the entries of the folder to disk."""
        os.fsync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)

    def _entered(self, name: str, flags: int) -> Directory:
        path = self.path / name
        try:
            return Directory(path, os.open(name, flags, dir_fd=self.descriptor))
        except NotADirectoryError:  # open(2) also raises this for a link
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
    """Resolve `path` through links of root and of this user; raise `OSError` for a link of another user."""
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
