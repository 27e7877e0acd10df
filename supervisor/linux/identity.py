"""The user that a command runs as: root switches to the owner of the folder that it works in.

Otherwise a job of that owner could replace names in the folder by links, and root would change other files.
Used by commands before they start a thread.  Tested by tests/cli/test_spool.py.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass

from supervisor.linux import syscalls as kernel
from supervisor.linux.directory import Directory


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and its group."""

    uid: int
    gid: int

    @classmethod
    def owner(cls, folder: Directory) -> Identity:
        """Return the owner of an open folder."""
        status = os.fstat(folder.descriptor)
        return cls(status.st_uid, status.st_gid)

    @property
    def is_needed(self) -> bool:
        """True if this process runs as root and the identity is another user."""
        return os.geteuid() == 0 and self.uid != 0

    def adopt(self, environment: MutableMapping[str, str]) -> None:
        """Switch to this user permanently, in `environment` too; raise `OSError` if root lacks the capability."""
        if not self.is_needed:
            return
        os.setgroups([])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        # The kernel does this itself unless fs.suid_dumpable is set.  Jobs of this user must not read the key.
        kernel.set_dumpable(False)
        for name in ("HOME", "USER", "LOGNAME", "MAIL", "XDG_RUNTIME_DIR"):
            environment.pop(name, None)
        try:
            account = pwd.getpwuid(self.uid)
        except KeyError:  # a dynamic user of a systemd unit that is not running
            return
        environment.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name)

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Access files as this user inside the block (credentials(7), effective ids)."""
        if not self.is_needed:
            yield
            return
        groups, gid = os.getgroups(), os.getegid()
        os.setgroups([])
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(gid)
            os.setgroups(groups)
