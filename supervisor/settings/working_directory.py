"""The folder that relative paths are meant from: by the path on which the user came to it.  No I/O but looking.

A release that is switched by a link (`current`) is started in `current/`, but the kernel keeps the folder behind the
link: without the user's path, a reload would load the old release again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

UNKNOWN = Path()
"""Relative paths stay relative to the folder that the kernel keeps."""


def working_directory(environment: Mapping[str, str]) -> Path:
    """Return `$PWD` if it names the current folder, as shells see to it (environ(7)); else `UNKNOWN`.

    It is asked for at the start: after a switch of the link it names another folder, on purpose.
    """
    named = Path(environment.get("PWD", ""))
    try:
        is_here = named.is_absolute() and named.samefile(UNKNOWN)
    except (OSError, ValueError):
        return UNKNOWN
    return named if is_here else UNKNOWN
