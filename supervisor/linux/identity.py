"""The user that a command acts as: root becomes the owner of the folder that it works in.

What root did there by name, a job of that owner could turn against root's files.  Used by commands, before they start
any thread.
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
        """The owner of an open folder."""
        status = os.fstat(folder.descriptor)
        return cls(status.st_uid, status.st_gid)

    @property
    def is_needed(self) -> bool:
        """True if this process is root's and the identity is another user's."""
        return os.geteuid() == 0 and self.uid != 0

    def adopt(self, environment: MutableMapping[str, str]) -> None:
        """Become this user for good, in `environment` as well; raise `OSError` when root lacks the right to do so."""
        if not self.is_needed:
            return
        os.setgroups([])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        # The kernel does so by itself, unless fs.suid_dumpable says otherwise: jobs of this user must not read the key.
        kernel.set_dumpable(False)
        for name in ("HOME", "USER", "LOGNAME", "MAIL", "XDG_RUNTIME_DIR"):
            environment.pop(name, None)
        try:
            account = pwd.getpwuid(self.uid)
        except KeyError:  # a dynamic user of systemd, seen from outside
            return
        environment.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name)

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Act on files as this user inside the block (credentials(7), effective ids)."""
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
