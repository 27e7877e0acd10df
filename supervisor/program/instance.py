"""The place of one worker id in the state directory: a lock, and scratch folders for its jobs.

Runs in the parent.  The lock keeps a second process of this host from using the same worker id: both would hold the
same fences, and the server could not tell them apart.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import structlog

from supervisor.settings.config import ConfigError
from supervisor.work.removal import remove

log = structlog.get_logger("instance")


@contextmanager
def claimed_instance(state_dir: Path, worker_id: str) -> Iterator[Path]:
    """Yield the scratch folder of `worker_id`, which is ours inside the block; raise `ConfigError` if it is taken.

    What dead instances left behind is removed first.
    """
    instances = state_dir / "instances"
    # Dots too: an id such as ".." is no way out of here.
    folder = instances / quote(worker_id, safe="").replace(".", "%2E")
    try:
        instances.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(instances):
            _remove_the_dead(instances, folder)
            folder.mkdir(mode=0o700, exist_ok=True)
            lock = _locked(folder)
    except OSError as error:
        raise ConfigError(f"the state directory {state_dir} cannot be used: {error.strerror or error}") from error
    if lock is None:
        raise ConfigError(
            f"the worker id {worker_id!r} is in use by another process on this host: "
            "give another --worker-id, or none, which makes a new one"
        )
    try:
        yield _free_place(folder / "scratch")
    finally:
        with _alone(instances):
            _is_removed(folder)
            os.close(lock)


@contextmanager
def _alone(instances: Path) -> Iterator[None]:
    """Come and go one process at a time: a folder that is not locked yet would be taken for a dead one's."""
    with contextlib.ExitStack() as stack:
        descriptor = os.open(instances, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _remove_the_dead(instances: Path, ours: Path) -> None:
    for folder in instances.iterdir():
        if folder == ours:
            continue
        with contextlib.suppress(OSError):
            lock = _locked(folder)
            if lock is not None:
                _is_removed(folder)
                os.close(lock)


def _free_place(path: Path) -> Path:
    """Nothing is there; somewhere beside `path` when what a dead instance has left there cannot be removed."""
    return path if _is_removed(path) else path.with_name(f"{path.name}-{uuid4().hex}")


def _is_removed(path: Path) -> bool:
    """Remove it, if that can be: what a job has left is no reason not to start, or not to leave."""
    try:
        remove(path)
    except OSError as error:
        log.warning("what jobs have left cannot be removed", folder=str(path), error=str(error))
        return False
    return True


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None when another process does (flock(2): it ends with its holder)."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
