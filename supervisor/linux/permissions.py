"""Warnings about files and folders that other users may change: handlers, settings, secrets and state.

Such files are used nevertheless, because some container images have these modes everywhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def open_to_all(path: Path) -> str | None:
    """Return a warning if every user may change the file or folder `path`."""
    with suppress(OSError):
        if path.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            return f"{path} can be changed by every user of this machine: chmod o-w is safer"
    return None


def warning_of(path: Path) -> str | None:
    """Return the warning of `open_to_all`; if this process runs as root, also warn of another owner."""
    with suppress(OSError):
        owner = path.stat().st_uid
        if os.geteuid() == 0 and owner != 0:
            return f"{path} can be changed by uid {owner}, and root relies on it: chown root is safer"
    return open_to_all(path)


def warnings_of(paths: Iterable[Path]) -> list[str]:
    """Return the warnings for these paths and all folders above them, each once."""
    places: dict[Path, None] = {}
    for path in paths:
        with suppress(OSError):
            found = path.resolve()
            places.update(dict.fromkeys((*reversed(found.parents), found)))
    return [sentence for place in places if (sentence := warning_of(place)) is not None]
