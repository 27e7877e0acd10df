"""The folder of one worker id in the state directory: its lock, and the scratch folders of its jobs.

Runs in the parent.  The lock keeps a second process of this host from using the same worker id: both would hold the
same fences, and the server could not tell them apart.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import structlog

from supervisor.linux.directory import Directory, resolved
from supervisor.linux.remove_tree import remove_tree
from supervisor.settings.resolution import ConfigError

log = structlog.get_logger("instance")


@contextmanager
def hold_instance(state_dir: Path, worker_id: str) -> Iterator[Path]:
    """Yield the scratch folder of `worker_id`, which is ours inside the block; raise `ConfigError` if it is taken.

    What dead instances left behind is removed first.  The path that is yielded has no links in it.
    """
    # Dots are quoted too: an id such as ".." must not lead out of the folder.
    name = quote(worker_id, safe="").replace(".", "%2E")
    with ExitStack() as stack:
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            state = stack.enter_context(Directory.open(resolved(state_dir)))
            instances = stack.enter_context(state.make_folder("instances"))
            with _alone(instances):
                _remove_abandoned(instances, name)
                folder = stack.enter_context(instances.make_folder(name))
                lock = _locked(folder)
        except OSError as error:
            raise ConfigError(f"the state directory {state_dir} cannot be used: {error.strerror or error}") from error
        if lock is None:
            raise ConfigError(
                f"the worker id {worker_id!r} is in use by another process on this host: "
                "give another --worker-id, or none, which makes a new one"
            )
        try:
            yield _free_place(folder.path / "scratch")
        finally:
            with _alone(instances):
                _is_removed(folder.path)
                os.close(lock)


@contextmanager
def _alone(instances: Directory) -> Iterator[None]:
    """Let one process at a time make or remove its folder: one without a lock yet would count as left over."""
    with instances.folder(".") as opened:  # a lock belongs to one open file description (flock(2))
        fcntl.flock(opened.descriptor, fcntl.LOCK_EX)
        yield


def _remove_abandoned(instances: Directory, ours: str) -> None:
    for name in instances.names():
        if name == ours:
            continue
        with suppress(OSError), instances.folder(name) as folder:
            lock = _locked(folder)
            if lock is not None:
                _is_removed(folder.path)
                os.close(lock)


def _free_place(path: Path) -> Path:
    """Nothing is there; somewhere beside `path` when what a dead instance has left there cannot be removed."""
    return path if _is_removed(path) else path.with_name(f"{path.name}-{uuid4().hex}")


def _is_removed(path: Path) -> bool:
    """Remove the folder if possible: files that a job left must not keep the program from starting or ending."""
    try:
        remove_tree(path)
    except OSError as error:
        log.warning("what jobs have left cannot be removed", folder=str(path), error=str(error))
        return False
    return True


def _locked(folder: Directory) -> int | None:
    """Return a descriptor that holds the folder's lock; None if another process holds it.

    The lock ends with its holder (flock(2)).
    """
    descriptor = folder.open_file("lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
