"""The path of the control socket, by rules that the running program and the commands share.  Only looks at files.

Commands must start fast, so this module imports nothing heavy.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from supervisor.settings.resolution import ConfigError

MAX_SOCKET_PATH_BYTES = 107
"""Limit of a socket path (unix(7): `sun_path` without its terminating zero)."""
RUN = Path("/run")
"""Folder of systemd's `RuntimeDirectory=`.  An operator's shell has no `$RUNTIME_DIRECTORY`."""
NAME = "mobius-supervisor"
ENDING = ".sock"


class NotRunning(Exception):
    """No supervisor listens; the message is one sentence.  Caught by the commands."""


def runtime_dir(environment: Mapping[str, str], state_dir: Path) -> Path:
    """Return the folder in which a program with this environment and state directory creates its socket."""
    return _folders(environment, state_dir)[0]


def socket_path(folder: Path, worker_id: str) -> Path:
    """Return the socket path of a worker.  A long id, or one that is no file name, is shortened and gets a digest."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", worker_id)[:40].lstrip(".")
    if name != worker_id:
        name += "-" + hashlib.sha256(worker_id.encode()).hexdigest()[:8]
    return folder / (name + ENDING)


def too_long(path: Path) -> str | None:
    """Return the error message for a path that is too long for a socket; None for any other path."""
    length = len(os.fsencode(path))
    if length <= MAX_SOCKET_PATH_BYTES:
        return None
    most = f"{MAX_SOCKET_PATH_BYTES} are possible"
    return f"the path {path} of the control socket has {length} bytes, {most}: give a shorter --socket"


def find_socket(environment: Mapping[str, str], state_dir: Path, worker_id: str | None) -> Path:
    """Return the socket of the only running supervisor, or of the one with this id.

    Inside a service, as in `ExecReload=`, prefer the socket of the service: other supervisors of the user do not count.
    Raise `NotRunning` if there is none and `ConfigError` if there are several.
    """
    folders = [*_folders(environment, state_dir), *of_services(RUN)]
    if environment.get("RUNTIME_DIRECTORY") and worker_id is None and len(own := _all_in(folders[:1])) == 1:
        return own[0]
    found = _all_in(folders) if worker_id is None else _answered(socket_path(each, worker_id) for each in folders)
    if not found:
        raise NotRunning(_not_running_message(folders, worker_id))
    if len(found) > 1:
        raise ConfigError(f"several supervisors run here, name one by --worker-id or --socket: {_listed(found)}")
    return found[0]


def of_services(base: Path) -> list[Path]:
    """Return the folders in `base` that systemd creates for the service and has created for template instances."""
    return [base / NAME, *sorted(base.glob(f"{NAME}-*"))]


def connect(end: socket.socket, path: Path) -> None:
    """Connect to the socket at `path`; raise `OSError`, also if the path is a link.

    A job can write to the folder of its supervisor's socket.  A link there could redirect root to any other socket.
    """
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_ISLNK(os.fstat(found).st_mode):
            raise OSError(errno.ELOOP, f"{path} is a link, and must be a socket")
        end.connect(f"/proc/self/fd/{found}")
    finally:
        os.close(found)


def is_answered(path: Path) -> bool:
    """True if a process listens at the path, even if this user may not connect.  False for a dead process's file."""
    try:
        return _listens_to_us(path)
    except PermissionError:
        return True


def is_inaccessible(path: Path) -> bool:
    """True if the path exists, or may exist, and this user may not read it."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, PermissionError)
    return not os.access(path, os.R_OK)


def _answered(paths: Iterable[Path]) -> list[Path]:
    """Return the sockets that accept a connection; if there are none, the inaccessible ones, for the message."""
    ours, others = [], []
    for path in dict.fromkeys(paths):
        try:
            if _listens_to_us(path):
                ours.append(path)
        except PermissionError:
            if os.access(path, os.F_OK):  # in an inaccessible folder the socket may not exist at all
                others.append(path)
    return ours or others


def _all_in(folders: Iterable[Path]) -> list[Path]:
    return _answered(path for each in folders for path in _sockets_in(each))


def _not_running_message(folders: Sequence[Path], worker_id: str | None) -> str:
    """Return the message of `NotRunning`; for a given worker id it lists the other supervisors."""
    if worker_id is None:
        return f"no supervisor runs here: nobody listens in {_listed(folders)}"
    who = f"no supervisor with the worker id {worker_id!r} runs here"
    if others := _all_in(folders):
        return f"{who}: in {_listed(folders)} there is only {_listed(others)}"
    return f"{who}: nobody listens in {_listed(folders)}"


def _listens_to_us(path: Path) -> bool:
    """True if a process accepts a connection at the path; raise `PermissionError` if this user may not connect."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        try:
            connect(end, path)
        except PermissionError:
            raise
        except (OSError, ValueError):
            return False
    return True


def _folders(environment: Mapping[str, str], state_dir: Path) -> list[Path]:
    folders = []
    # systemd joins several runtime directories by ':'; the first is the service's own.
    if runtime := environment.get("RUNTIME_DIRECTORY", "").split(":")[0]:
        folders.append(Path(runtime))
    if (base := environment.get("XDG_RUNTIME_DIR", "")).startswith("/"):
        folders.append(Path(base) / NAME)
    return [*folders, state_dir / "run"]


def _listed(paths: Iterable[Path]) -> str:
    """Join the paths for a message, and mark those that this user may not read."""
    return ", ".join(
        f"{path} (which you may not read)" if is_inaccessible(path) else str(path) for path in dict.fromkeys(paths)
    )


def _sockets_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ENDING and _is_socket(path))
    except OSError:
        return []


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:  # gone by now
        return False
