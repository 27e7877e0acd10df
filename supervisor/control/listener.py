"""The sockets that are listened on.  A unix socket takes the place of a dead process's, never of a living one's."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from supervisor.control.place import is_answered, too_long
from supervisor.process.directory import Directory
from supervisor.settings.config import ConfigError
from supervisor.text.authority import authority

BACKLOG = 64


@contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """Listen at `path`, for this user alone; raise `ConfigError`.  The socket is closed by whoever takes it."""
    if problem := too_long(path):
        raise ConfigError(problem)
    with ExitStack() as stack:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = stack.enter_context(Directory.open(path.parent))
            _refuse_what_is_no_leftover(path)
            end = _bound(folder, path.name)
        except OSError as error:
            raise ConfigError(f"the control socket {path} cannot be made: {error.strerror or error}") from error
        ours = folder.status(path.name)
        try:
            yield end
        finally:
            with contextlib.suppress(OSError):
                if os.path.samestat(folder.status(path.name), ours):
                    folder.unlink(path.name)


def tcp_socket(host: str, port: int) -> socket.socket:
    """Listen on an address; raise `ConfigError`."""
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[4][:2], family=address[0], backlog=BACKLOG)
    except OSError as error:
        where = authority(host, port)
        raise ConfigError(f"--listen: {where} cannot be listened on: {error.strerror or error}") from error


def _refuse_what_is_no_leftover(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"the control socket {path} cannot be made: something else is there")
        if is_answered(path):
            raise ConfigError(f"the control socket {path} cannot be made: another process listens there")


def _bound(folder: Directory, name: str) -> socket.socket:
    # Made under another name and renamed: a client that finds it under its own can connect.
    unfinished = f".{secrets.token_hex(8)}"
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The file gets the mode of the socket (unix(7)); chmod(2) by name could be led elsewhere by a link.
        os.fchmod(end.fileno(), 0o600)
        end.bind(f"/proc/self/fd/{folder.descriptor}/{unfinished}")
        end.listen(BACKLOG)
        folder.rename(unfinished, name)
    except BaseException:
        end.close()
        raise
    return end
