"""Removing whatever a job has left in its folder: deep trees, files that nobody may write to, links.

Blocks: called in threads, or before the event loop runs.  `shutil.rmtree` gives up on a folder without the right to
write to it, and goes as deep into Python's stack as into the tree.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def remove(path: Path) -> None:
    """Remove what is there, if anything; links are removed and not followed.

    Raises the first `OSError` when something stays; all that can be removed is gone then.
    """
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except IsADirectoryError:
        faults: list[OSError] = []
        _remove_tree(path, faults)
        if faults and os.path.lexists(path):
            raise faults[0] from None


def _remove_tree(path: Path, faults: list[OSError]) -> None:
    """Each folder below is first brought up to the top, so that neither depth nor the length of a path matters."""
    with _noting(faults):
        path.chmod(0o700)
    with _noting(faults), _opened(str(path)) as top:
        waiting = _emptied(top, top, faults)
        while waiting:
            name = waiting.pop()
            with _noting(faults), _opened(name, top) as folder:
                waiting += _emptied(folder, top, faults)
            with _noting(faults):
                os.rmdir(name, dir_fd=top)
    with _noting(faults):
        path.rmdir()


def _emptied(folder: int, top: int, faults: list[OSError]) -> list[str]:
    """Empty a folder; return the names in `top` of the folders that were in it."""
    moved = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with _noting(faults):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=folder)
                    continue
            with _noting(faults):  # or it could neither be moved nor read
                os.chmod(entry.name, 0o700, dir_fd=folder)
            name = entry.name if folder == top else uuid.uuid4().hex  # none that is there already
            with _noting(faults):
                if folder != top:
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
def _opened(path: str, within: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
