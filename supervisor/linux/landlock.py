"""Landlock (landlock(7)): a process gives up rights for good, for itself and all that it will start.  By ctypes.

A ruleset names the rights that it handles; whoever enforces it keeps those only where a rule allows them.
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
    """What may reach no further than to processes that are restricted alike."""

    NONE = 0
    SIGNAL = 1 << 1


OF_FILES = Right.WRITE_FILE | Right.READ_FILE
WITH_REFER = 2
"""The first version in which moving files between folders need not be forbidden."""
WITH_SIGNALS = 6
"""The first version that knows `Scope.SIGNAL`."""


def version() -> int:
    """Return the version that the kernel speaks; 0 where it has none, or a filter of system calls forbids to ask."""
    try:
        return system_call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


class Ruleset:
    """A ruleset under construction, which any number of processes may enforce."""

    def __init__(self, handled: Right, scope: Scope = Scope.NONE) -> None:
        """Handle these rights on files; moving files is one that every ruleset of files handles, so it is allowed."""
        attributes = struct.pack("=QQQ", handled | Right.REFER, 0, scope)
        self._handled = handled
        self._descriptor = system_call(_CREATE_RULESET, attributes, len(attributes), 0)
        self._allow(Path("/"), Right.REFER)

    def allow_all_but(self, *hidden: Path) -> None:
        """Allow everything that exists beside the ways from / to `hidden`, with all that is or will be below it.

        What appears later in one of the folders on these ways is not allowed: rules are of existing files and folders.
        """
        for path in _beside(hidden):
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                self._allow(path, self._handled)

    def enforce(self) -> None:
        """Restrict this thread, and what it starts from now on; `kernel.forbid_new_privileges` comes first."""
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
    """Everything that stands beside the hidden files, and beside each folder on the ways to them."""
    folders = {folder for path in hidden for folder in path.parents}
    closed = folders.union(hidden)
    for folder in sorted(folders):
        with contextlib.suppress(PermissionError):  # what cannot be listed stays closed
            # A link is not followed: what it leads to is found in its own place.
            yield from (entry for entry in folder.iterdir() if entry not in closed and not entry.is_symlink())
