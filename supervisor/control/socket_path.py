"""Where the control socket is: the rule that the running program and the commands share.  No I/O but looking.

The commands are to answer at once, so nothing heavy is imported here.
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
"""Bytes of a socket's path (unix(7): `sun_path`, with its last zero)."""
RUN = Path("/run")
"""Where `RuntimeDirectory=` of the units makes folders; an operator's shell does not know `$RUNTIME_DIRECTORY`."""
NAME = "mobius-supervisor"
ENDING = ".sock"


class NotRunning(Exception):
    """There is nobody to talk to; the text is one sentence.  Caught by the commands."""


def runtime_dir(environment: Mapping[str, str], state_dir: Path) -> Path:
    """Where a program with this environment and state directory has its socket."""
    return _folders(environment, state_dir)[0]


def socket_path(folder: Path, worker_id: str) -> Path:
    """The socket of one worker; ids that are long, or no names of files, are cut and told apart by a digest."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", worker_id)[:40].lstrip(".")
    if name != worker_id:
        name += "-" + hashlib.sha256(worker_id.encode()).hexdigest()[:8]
    return folder / (name + ENDING)


def too_long(path: Path) -> str | None:
    """What is wrong with a path that no socket can have; None when nothing is."""
    length = len(os.fsencode(path))
    if length <= MAX_SOCKET_PATH_BYTES:
        return None
    most = f"{MAX_SOCKET_PATH_BYTES} are possible"
    return f"the path {path} of the control socket has {length} bytes, {most}: give a shorter --socket"


def find_socket(environment: Mapping[str, str], state_dir: Path, worker_id: str | None) -> Path:
    """The socket of the one program that runs here, or of the one with this id; raise `ConfigError`.

    Inside a service, as in `ExecReload=`, it is the service's own: others of the same user do not count.
    """
    folders = [*_folders(environment, state_dir), *of_services(RUN)]
    if environment.get("RUNTIME_DIRECTORY") and worker_id is None and len(own := _all_in(folders[:1])) == 1:
        return own[0]
    found = _all_in(folders) if worker_id is None else _answered(socket_path(each, worker_id) for each in folders)
    if not found:
        raise NotRunning(_nobody(folders, worker_id))
    if len(found) > 1:
        raise ConfigError(f"several supervisors run here, name one by --worker-id or --socket: {_listed(found)}")
    return found[0]


def of_services(base: Path) -> list[Path]:
    """Where systemd makes a folder in `base` for the service, and has made some for instances of the template."""
    return [base / NAME, *sorted(base.glob(f"{NAME}-*"))]


def connect(end: socket.socket, path: Path) -> None:
    """Connect to the socket at `path`; raise `OSError`, also when a link is there.

    A job can write to the folder of its supervisor's socket.  A link there could lead root to any other socket.
    """
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_ISLNK(os.fstat(found).st_mode):
            raise OSError(errno.ELOOP, f"{path} is a link, and must be a socket")
        end.connect(f"/proc/self/fd/{found}")
    finally:
        os.close(found)


def is_answered(path: Path) -> bool:
    """Whether somebody listens, perhaps not to us; what a dead process left behind is a file like any other."""
    try:
        return _listens_to_us(path)
    except PermissionError:
        return True


def is_inaccessible(path: Path) -> bool:
    """Whether something is there, or may be, that is not ours to read."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, PermissionError)
    return not os.access(path, os.R_OK)


def _answered(paths: Iterable[Path]) -> list[Path]:
    """Those at which somebody listens to us; if nobody does, those that are not ours, for the caller to be told so."""
    ours, others = [], []
    for path in dict.fromkeys(paths):
        try:
            if _listens_to_us(path):
                ours.append(path)
        except PermissionError:
            if os.access(path, os.F_OK):  # in a folder that is not ours, either, there may be nothing
                others.append(path)
    return ours or others


def _all_in(folders: Iterable[Path]) -> list[Path]:
    return _answered(path for each in folders for path in _sockets_in(each))


def _nobody(folders: Sequence[Path], worker_id: str | None) -> str:
    """That nobody listens; to whom asks for one worker, which others do."""
    if worker_id is None:
        return f"no supervisor runs here: nobody listens in {_listed(folders)}"
    who = f"no supervisor with the worker id {worker_id!r} runs here"
    if others := _all_in(folders):
        return f"{who}: in {_listed(folders)} there is only {_listed(others)}"
    return f"{who}: nobody listens in {_listed(folders)}"


def _listens_to_us(path: Path) -> bool:
    """Raise `PermissionError` when that cannot be known."""
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
    """The paths, and which of them are not ours to look into."""
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
