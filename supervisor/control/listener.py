"""The sockets that are listened on.  A unix socket takes the place of a dead process's, never of a living one's."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from supervisor.control.place import is_answered, too_long
from supervisor.settings.config import ConfigError
from supervisor.text.authority import authority

BACKLOG = 64


@contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """Listen at `path`, for this user alone; raise `ConfigError`.  The socket is closed by whoever takes it."""
    if problem := too_long(path):
        raise ConfigError(problem)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_what_is_no_leftover(path)
        end = _bound(path)
    except OSError as error:
        raise ConfigError(f"the control socket {path} cannot be made: {error.strerror or error}") from error
    ours = path.stat()
    try:
        yield end
    finally:
        with contextlib.suppress(OSError):
            if os.path.samestat(path.stat(), ours):
                path.unlink()


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


def _bound(path: Path) -> socket.socket:
    # Made under another name and renamed: whoever finds it under its own can connect, and never with the umask's mode.
    unfinished = path.with_name(f".{secrets.token_hex(8)}"[: len(path.name)])
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        end.bind(os.fspath(unfinished))
        unfinished.chmod(0o600)
        end.listen(BACKLOG)
        unfinished.rename(path)
    except BaseException:
        end.close()
        raise
    return end
