"""Files and folders that users may change who should not: one rule for handlers, settings, secrets and the state.

They are used all the same: some container images have such modes everywhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def open_to_all(path: Path) -> str | None:
    """Return a sentence if every user may change what is at `path`."""
    with suppress(OSError):
        if path.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            return f"{path} can be changed by every user of this machine: chmod o-w is safer"
    return None


def warning_of(path: Path) -> str | None:
    """As `open_to_all`; for root, also if another user owns what is there."""
    with suppress(OSError):
        owner = path.stat().st_uid
        if os.geteuid() == 0 and owner != 0:
            return f"{path} can be changed by uid {owner}, and root relies on it: chown root is safer"
    return open_to_all(path)


def warnings_of(paths: Iterable[Path]) -> list[str]:
    """Return the sentences for these paths and all folders above them, each once."""
    places: dict[Path, None] = {}
    for path in paths:
        with suppress(OSError):
            found = path.resolve()
            places.update(dict.fromkeys((*reversed(found.parents), found)))
    return [sentence for place in places if (sentence := warning_of(place)) is not None]
