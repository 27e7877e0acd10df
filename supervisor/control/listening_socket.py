"""Listening sockets of operators: the file of the control socket, and a TCP address."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
from contextlib import ExitStack
from pathlib import Path

from supervisor.control.socket_path import is_answered, too_long
from supervisor.linux.directory import Directory
from supervisor.settings.resolution import ConfigError
from supervisor.text.printable import authority

BACKLOG = 64


class SocketFile:
    """Owns the file of the control socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ours: os.stat_result | None = None
        # Open as long as the socket: the socket's address (`/proc/self/fd/N/...`) contains this descriptor.  Since
        # Python 3.13 event loops look at the file behind the address, and fail if another file uses the number.
        self._folder: Directory | None = None

    def bind(self) -> socket.socket:
        """Return a listening socket that only this user may connect to; raise `ConfigError`.  The caller closes it."""
        if problem := too_long(self.path):
            raise ConfigError(problem)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with ExitStack() as stack:
                folder = stack.enter_context(Directory.open(self.path.parent))
                self._require_absent_or_stale()
                end = _bound(folder, self.path.name)
                stack.pop_all()
        except OSError as error:
            raise _refused(self.path, error.strerror or str(error)) from error
        self._close_folder()
        self._folder = folder
        with contextlib.suppress(OSError):  # the file may be gone again: the next check notices
            self._ours = folder.status(self.path.name)
        return end

    def bind_again(self) -> socket.socket:
        """As `bind`, after the file has been removed.  Raise `ConfigError` also if another user's file is there."""
        with contextlib.suppress(OSError):
            owner = self.path.lstat().st_uid
            if owner != os.geteuid():
                raise _refused(self.path, f"a file of uid {owner} is there")
        return self.bind()

    def is_in_place(self) -> bool:
        """True if the path leads to the listening socket.  The kernel does not reuse its inode while it listens."""
        try:
            with Directory.open(self.path.parent) as folder:
                return self._is_ours(folder)
        except OSError:
            return False

    def remove(self) -> None:
        """Remove the file, unless another file has replaced it."""
        with contextlib.suppress(OSError), Directory.open(self.path.parent) as folder:
            if self._is_ours(folder):
                folder.unlink(self.path.name)
        self._close_folder()

    def _close_folder(self) -> None:
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def _is_ours(self, folder: Directory) -> bool:
        return self._ours is not None and os.path.samestat(folder.status(self.path.name), self._ours)

    def _require_absent_or_stale(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise _refused(self.path, "something else is there")
            if is_answered(self.path):
                raise _refused(self.path, "another process listens there")


def tcp_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; raise `ConfigError`."""
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[4][:2], family=address[0], backlog=BACKLOG)
    except OSError as error:
        where = authority(host, port)
        raise ConfigError(f"--listen: {where} cannot be listened on: {error.strerror or error}") from error


def _refused(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"the control socket {path} cannot be made: {reason}")


def _bound(folder: Directory, name: str) -> socket.socket:
    # Created under a temporary name, then renamed: a client that finds the final name can connect at once.
    unfinished = f".{secrets.token_hex(8)}"
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The file gets the mode of the socket (unix(7)); chmod(2) by name could follow a link to another file.
        os.fchmod(end.fileno(), 0o600)
        end.bind(f"/proc/self/fd/{folder.descriptor}/{unfinished}")
        end.listen(BACKLOG)
        folder.rename(unfinished, name)
    except BaseException:
        end.close()
        raise
    return end
