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
    """Remove what is there, if anything; links are removed and not followed.  Raises `OSError` when something stays."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except IsADirectoryError:
        _remove_tree(path)


def _remove_tree(path: Path) -> None:
    """Each folder below is first brought up to the top, so that neither depth nor the length of a path matters."""
    path.chmod(0o700)
    with _opened(str(path)) as top:
        waiting = _emptied(top, top)
        while waiting:
            name = waiting.pop()
            with _opened(name, top) as folder:
                waiting += _emptied(folder, top)
            os.rmdir(name, dir_fd=top)
    path.rmdir()


def _emptied(folder: int, top: int) -> list[str]:
    """Empty a folder; return the names in `top` of the folders that were in it."""
    moved = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=folder)
                continue
            os.chmod(entry.name, 0o700, dir_fd=folder)  # or it could neither be moved nor read
            name = entry.name
            if folder != top:
                name = uuid.uuid4().hex  # none that is there already
                os.rename(entry.name, name, src_dir_fd=folder, dst_dir_fd=top)
            moved.append(name)
    return moved


@contextmanager
def _opened(path: str, within: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
