"""Landlock (landlock(7)): a process permanently gives up rights for itself and its future descendants.  Uses ctypes.

A ruleset names the rights that it handles.  A process that enforces the ruleset keeps these rights only where a rule
allows them.  Tested by tests/linux/test_confinement.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import stat
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

from supervisor.linux.syscalls import system_call

# The same on all architectures but alpha.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1


class Right(enum.IntFlag):
    """Rights on files, as in `struct landlock_ruleset_attr`."""

    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    REMOVE_DIR = 1 << 4
    MAKE_DIR = 1 << 7
    REFER = 1 << 13  # moving and linking from one folder to another


class Scope(enum.IntFlag):
    """Actions that are limited to processes with the same restriction."""

    NONE = 0
    SIGNAL = 1 << 1


OF_FILES = Right.WRITE_FILE | Right.READ_FILE
WITH_REFER = 2
"""The first version that can allow files to be moved between folders."""
WITH_SIGNALS = 6
"""The first version that supports `Scope.SIGNAL`."""


def version() -> int:
    """Return the Landlock version of the kernel; 0 if it has none, or if a seccomp filter blocks the call."""
    try:
        return system_call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


class Ruleset:
    """A ruleset, which any number of processes may enforce."""

    def __init__(self, handled: Right, scope: Scope = Scope.NONE) -> None:
        """Handle these rights.  Every ruleset for files also restricts moving files, so one rule allows it again."""
        attributes = struct.pack("=QQQ", handled | Right.REFER, 0, scope)
        self._handled = handled
        self._descriptor = system_call(_CREATE_RULESET, attributes, len(attributes), 0)
        self._allow(Path("/"), Right.REFER)

    def allow_all_but(self, *hidden: Path) -> None:
        """Allow all existing files and folders, with their present and future content, except the paths to `hidden`.

        A file that is later created directly in a folder on such a path is not allowed: rules name existing entries.
        """
        for path in _beside(hidden):
            with contextlib.suppress(FileNotFoundError):  # removed since the listing
                self._allow(path, self._handled)

    def enforce(self) -> None:
        """Restrict this thread and its future descendants.  Call `syscalls.forbid_new_privileges` before."""
        system_call(_RESTRICT_SELF, self._descriptor, 0)

    def close(self) -> None:
        os.close(self._descriptor)

    def _allow(self, path: Path, rights: Right) -> None:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                rights &= OF_FILES
            rule = struct.pack("=Qi", rights, descriptor)
            system_call(_ADD_RULE, self._descriptor, _PATH_BENEATH, ctypes.c_char_p(rule), 0)
        finally:
            os.close(descriptor)


def _beside(hidden: Collection[Path]) -> Iterator[Path]:
    """Yield the siblings of the hidden files, and the siblings of each folder above them."""
    folders = {folder for path in hidden for folder in path.parents}
    closed = folders.union(hidden)
    for folder in sorted(folders):
        with contextlib.suppress(PermissionError):  # a folder that cannot be listed stays forbidden
            # Links are skipped: their targets are found at their own paths.
            yield from (entry for entry in folder.iterdir() if entry not in closed and not entry.is_symlink())
