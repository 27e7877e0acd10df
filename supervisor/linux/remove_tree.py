"""Removes the folder of a job with all its content: deep trees, read-only folders, links.

The calls block: they run in threads, or before the event loop runs.  `shutil.rmtree` fails at a read-only folder, and
its recursion is as deep as the tree.

A job can replace any name at any moment, and can mount a file system in its folder.  So folders are opened without
following links, and mounts are left in place: their files also exist elsewhere.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from supervisor.linux import syscalls as kernel
from supervisor.linux.directory import Directory

_NO_LINK = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Remove the file or folder `path`, if it exists.  `path` is absolute and has no link above its last name.

    Remove as much as possible, then raise the first `OSError` if `path` still exists.
    """
    try:
        with Directory.open_without_links(path.parent) as parent:
            _remove(parent, path.name)
    except FileNotFoundError:
        return


def _remove(parent: Directory, name: str) -> None:
    try:
        parent.unlink(name)
    except IsADirectoryError:
        errors: list[OSError] = []
        _remove_tree(parent.descriptor, name, errors)
        if errors and _is_there(parent, name):
            raise errors[0] from None


def _is_there(folder: Directory, name: str) -> bool:
    try:
        folder.status(name)
    except FileNotFoundError:
        return False
    return True


def _remove_tree(parent: int, name: str, errors: list[OSError]) -> None:
    """Remove a tree of any depth: subfolders are moved to the top folder before they are emptied."""
    mount = kernel.mount_of(parent)
    with _collecting(errors), _opened(name, parent, mount) as top:
        waiting = _empty(top, top, mount, errors)
        while waiting:
            below = waiting.pop()
            with _collecting(errors), _opened(below, top, mount) as folder:
                waiting += _empty(folder, top, mount, errors)
            with _collecting(errors):
                os.rmdir(below, dir_fd=top)
    with _collecting(errors):
        os.rmdir(name, dir_fd=parent)


def _empty(folder: int, top: int, mount: int, errors: list[OSError]) -> list[str]:
    """Empty a folder; move its subfolders to `top` and return their names there."""
    moved = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with _collecting(errors):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=folder)
                    continue
            if folder == top:
                moved.append(entry.name)
                continue
            with _collecting(errors):  # rename(2) needs the right to write to the folder that moves
                os.close(_writable(entry.name, folder, mount))
            name = uuid.uuid4().hex  # not in use in `top`
            with _collecting(errors):
                os.rename(entry.name, name, src_dir_fd=folder, dst_dir_fd=top)
                moved.append(name)
    return moved


@contextmanager
def _collecting(errors: list[OSError]) -> Iterator[None]:
    """Collect an `OSError` of the block and continue; a file that no longer exists is no error."""
    try:
        yield
    except FileNotFoundError:
        pass
    except OSError as error:
        errors.append(error)


@contextmanager
def _opened(name: str, parent: int, mount: int) -> Iterator[int]:
    """Open a folder for listing and writing; raise `OSError` if it is on another mount."""
    found = _writable(name, parent, mount)
    try:
        descriptor = os.open(".", os.O_RDONLY | _NO_LINK, dir_fd=found)
    finally:
        os.close(found)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _writable(name: str, parent: int, mount: int) -> int:
    """Give the owner all rights on a folder; return an O_PATH descriptor; raise `OSError` for another mount."""
    descriptor = os.open(name, os.O_PATH | _NO_LINK, dir_fd=parent)
    try:
        if kernel.mount_of(descriptor) != mount:
            raise OSError(errno.EBUSY, "the mount there is left in place", name)
        if os.fstat(descriptor).st_mode & 0o700 != 0o700:
            # Through /proc: fchmod(2) rejects O_PATH descriptors, and the name may have become a link.
            Path(f"/proc/self/fd/{descriptor}").chmod(0o700)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
