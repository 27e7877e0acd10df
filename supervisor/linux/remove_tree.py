"""Removing whatever a job has left in its folder: deep trees, files that nobody may write to, links.

Blocks: called in threads, or before the event loop runs.  `shutil.rmtree` gives up on a folder without the right to
write to it, and goes as deep into Python's stack as into the tree.

A job can replace any name at any moment, and can mount something in its folder.  So folders are opened without
following links, and what is mounted is left: its files are in another place, too.
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
    """Remove what is at `path`, which is absolute and without links, if anything; links in it are removed.

    Raises the first `OSError` when something stays; all that can be removed is gone then.
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
        faults: list[OSError] = []
        _remove_tree(parent.descriptor, name, faults)
        if faults and _is_there(parent, name):
            raise faults[0] from None


def _is_there(folder: Directory, name: str) -> bool:
    try:
        folder.status(name)
    except FileNotFoundError:
        return False
    return True


def _remove_tree(parent: int, name: str, faults: list[OSError]) -> None:
    """Each folder below is first brought up to the top, so that neither depth nor the length of a path matters."""
    mount = kernel.mount_of(parent)
    with _noting(faults), _opened(name, parent, mount) as top:
        waiting = _emptied(top, top, mount, faults)
        while waiting:
            below = waiting.pop()
            with _noting(faults), _opened(below, top, mount) as folder:
                waiting += _emptied(folder, top, mount, faults)
            with _noting(faults):
                os.rmdir(below, dir_fd=top)
    with _noting(faults):
        os.rmdir(name, dir_fd=parent)


def _emptied(folder: int, top: int, mount: int, faults: list[OSError]) -> list[str]:
    """Empty a folder; return the names in `top` of the folders that were in it."""
    moved = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with _noting(faults):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=folder)
                    continue
            if folder == top:
                moved.append(entry.name)
                continue
            with _noting(faults):  # rename(2) needs the right to write to the folder that moves
                os.close(_writable(entry.name, folder, mount))
            name = uuid.uuid4().hex  # none that is there already
            with _noting(faults):
                os.rename(entry.name, name, src_dir_fd=folder, dst_dir_fd=top)
                moved.append(name)
    return moved


@contextmanager
def _noting(faults: list[OSError]) -> Iterator[None]:
    """Go on after a fault; what has gone meanwhile is none."""
    try:
        yield
    except FileNotFoundError:
        pass
    except OSError as error:
        faults.append(error)


@contextmanager
def _opened(name: str, within: int, mount: int) -> Iterator[int]:
    """A folder that can be listed and written to; raise `OSError` when it is not of `mount`."""
    found = _writable(name, within, mount)
    try:
        descriptor = os.open(".", os.O_RDONLY | _NO_LINK, dir_fd=found)
    finally:
        os.close(found)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _writable(name: str, within: int, mount: int) -> int:
    """Return a descriptor (O_PATH) of a folder, with all rights for its owner; raise `OSError` when it is mounted."""
    descriptor = os.open(name, os.O_PATH | _NO_LINK, dir_fd=within)
    try:
        if kernel.mount_of(descriptor) != mount:
            raise OSError(errno.EBUSY, "the mount there is left in place", name)
        if os.fstat(descriptor).st_mode & 0o700 != 0o700:
            # By its descriptor: fchmod(2) refuses one of O_PATH, and a name may be a link by now.
            Path(f"/proc/self/fd/{descriptor}").chmod(0o700)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
