"""The `spool` commands that list, show and drop outcomes, also while the service runs.

An outcome that the service is sending can be shown but not dropped.  `spool_replay` sends outcomes; it is a separate
module because importing the HTTP client takes time.
"""

from __future__ import annotations

import base64
import contextlib
import os
import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path

import click

from supervisor.control.socket_path import is_inaccessible, of_services
from supervisor.job import Blob, Failed, Succeeded
from supervisor.linux.directory import Directory
from supervisor.linux.identity import Identity
from supervisor.reporting.spool import Spool, SpoolEntry, SpoolFile, SpoolFolder
from supervisor.reporting.spool_format import CorruptSpoolFile, SpoolRecord
from supervisor.settings import resolution as config
from supervisor.settings.resolution import ConfigError
from supervisor.text.columns import aligned
from supervisor.text.duration import format_duration
from supervisor.text.printable import escaped, shown_name
from supervisor.text.size import format_size

LIB = Path("/var/lib")
"""Folder of systemd's `StateDirectory=`.  An operator's shell has no `$STATE_DIRECTORY`."""
IN_HOME = Path(".local/state/mobius-supervisor")
"""The default state directory of a user's supervisor, below the home."""
MAX_HEAD_BYTES = 1200
"""Bytes of a result that `show` prints."""

_HEADINGS = ("JOB", "ATTEMPT", "ACTION", "STATUS", "SIZE", "AGE", "STATE", "FILE")


def list_all(spool: Spool, others: Sequence[tuple[Path, int]] = ()) -> None:
    """Print all outcomes as a table; if there are none, print how many outcomes the `others` contain."""
    found = spool.find(*SpoolFolder)
    if found:
        click.echo(aligned([_HEADINGS, *(_row(spool, each) for each in found)]))
        return
    click.echo(f"nothing in {spool.folder}", err=True)
    for path, count in others:
        click.echo(f"{count} in {escaped(str(path))}/spool: show them with --state-dir {escaped(str(path))}", err=True)


def show(spool: Spool, name: str) -> None:
    """Print the job of an outcome and the beginning of its result; raise `ConfigError` if it cannot be read."""
    found = _chosen(spool, name)
    entry = _seen(spool, found)
    try:
        lines = [*_about(entry.record, _state(spool, found)), *_head(entry)]
    finally:
        entry.close()
    click.echo("\n".join(map(escaped, lines)))


def drop(spool: Spool, name: str, *, is_sure: bool) -> None:
    """Delete an outcome permanently; raise `ConfigError` if that is not possible."""
    found = _chosen(spool, name)
    if not is_sure:
        raise ConfigError(f"dropping {found.path.name} cannot be undone: add --yes")
    if found.spool_folder is SpoolFolder.DAMAGED:
        spool.discard(found.path)
    else:
        _taken(spool, found).remove()
    click.echo(f"dropped {found.path.name}")


def state_dir_of(environment: Mapping[str, str], home: Path | None) -> Path:
    """Return the state directory to use without `--state-dir`; raise `ConfigError` if there are several candidates.

    Candidates are this user's own directory and those of the service and its instances that this user may read.
    """
    own = config.default_state_dir(environment, home)
    if environment.get("STATE_DIRECTORY"):
        return own
    present = [path for path in (own, *of_services(LIB)) if os.path.lexists(path)]
    ours = [path for path in present if not is_inaccessible(path)]
    keeping = [path for path in ours if _count(path)]
    if len(keeping) > 1:
        raise ConfigError(f"several supervisors keep outcomes here, name one by --state-dir: {_listed(keeping)}")
    if ours:
        return (keeping or ours)[0]
    if present:
        raise ConfigError(f"the outcomes are not yours to look at: you may not read {_listed(present)}")
    return own


def other_spools(state_dir: Path, accounts: Iterable[Path]) -> list[tuple[Path, int]]:
    """Return the other state directories of this host that contain outcomes, and the number of outcomes in each.

    Searches those of the services and those in the homes `accounts`.
    """
    homes = (home / IN_HOME for home in dict.fromkeys(accounts))
    found: dict[Path, int] = {}
    for path in (*of_services(LIB), *homes):
        with contextlib.suppress(OSError):
            place = path.resolve()
            if place != state_dir.resolve() and (count := _count(path)):
                found.setdefault(place, count)
    return list(found.items())


def spool_in(state_dir: Path, environment: MutableMapping[str, str]) -> Spool:
    """Return the spool of a state directory; raise `ConfigError` if the directory is missing or not readable.

    A mistyped name must not look like an empty spool.  Root becomes the directory's owner.
    """
    try:
        state = Directory.open(state_dir)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"there is no folder {state_dir}: check --state-dir, which must be that of the supervisor"
        ) from None
    except OSError as error:
        raise ConfigError(f"the state directory {state_dir} cannot be read: {error.strerror}") from error
    owner = Identity.owner(state)
    try:
        owner.adopt(environment)
    except OSError as error:
        raise ConfigError(
            f"root cannot become the owner (uid {owner.uid}) of {state_dir}: run the command as that user"
        ) from error
    spool = Spool(state_dir, state=state)
    try:
        spool.require_readable()
    except OSError as error:
        raise ConfigError(f"the spool {error.filename} cannot be read: {error.strerror}") from error
    return spool


def _count(state_dir: Path) -> int:
    """Return the number of outcomes in a state directory; 0 if it cannot be read."""
    try:
        with Directory.open(state_dir) as state, Identity.owner(state).borrowed():
            return len(Spool(state_dir, state=state).find(*SpoolFolder))
    except OSError:
        return 0


def _listed(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))


def _row(spool: Spool, found: SpoolFile) -> tuple[str, ...]:
    record = found.record
    cells = ("-", "-", "-", "-") if record is None else _job_cells(record)
    since = found.changed_at if record is None else record.written_at
    age = format_duration(max(0, round(time.time() - since)))
    return (*cells, format_size(found.size), age, _state(spool, found), found.path.name)


def _job_cells(record: SpoolRecord) -> tuple[str, ...]:
    return (shown_name(record.fence.job_id), str(record.fence.attempt), shown_name(record.action), _status(record))


def _status(record: SpoolRecord) -> str:
    return "completed" if record.failed is None else f"failed {escaped(record.failed.error_type)}"


def _state(spool: Spool, found: SpoolFile) -> str:
    if found.spool_folder is not SpoolFolder.WAITING:
        return found.spool_folder.name.lower()
    return "in hands" if spool.is_locked(found.path) else "waiting"


def _chosen(spool: Spool, name: str) -> SpoolFile:
    """Return the only outcome with this file name, job id or `JOB#ATTEMPT`."""
    matches = [found for found in spool.find(*SpoolFolder) if name in _names(found)]
    if not matches:
        raise ConfigError(f"there is no outcome {name!r} in {spool.folder}")
    if len(matches) > 1:
        files = ", ".join(found.path.name for found in matches)
        raise ConfigError(f"{name!r} is not one outcome but several: name one of {files}")
    return matches[0]


def _names(found: SpoolFile) -> tuple[str, ...]:
    return (found.path.name, *((found.record.fence.job_id, str(found.record.fence)) if found.record else ()))


def _seen(spool: Spool, found: SpoolFile) -> SpoolEntry:
    """Return an outcome for reading, also while another process has locked it."""
    try:
        return spool.read(found.path)
    except FileNotFoundError:
        raise _gone(found) from None
    except CorruptSpoolFile:
        raise _damaged(found) from None
    except OSError as error:
        raise ConfigError(f"{found.path.name} cannot be read: {error.strerror or error}") from error


def _taken(spool: Spool, found: SpoolFile) -> SpoolEntry:
    """Lock an outcome and return it."""
    if found.record is None:
        raise _damaged(found)
    entry = spool.acquire(found.path)
    if entry is not None:
        return entry
    if spool.is_locked(found.path):
        raise ConfigError(f"{found.path.name} is being sent at this moment: try again later")
    raise _damaged(found) if spool.is_damaged(found.path) else _gone(found)


def _damaged(found: SpoolFile) -> ConfigError:
    return ConfigError(f"{found.path.name} is damaged: nothing in it can be trusted")


def _gone(found: SpoolFile) -> ConfigError:
    return ConfigError(f"{found.path.name} is there no more: it may have been sent meanwhile")


def _about(record: SpoolRecord, state: str) -> list[str]:
    written = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(record.written_at))
    return [
        f"server   {record.destination.base_url}",
        f"project  {record.destination.project}",
        f"job      {record.fence.job_id}",
        f"attempt  {record.fence.attempt}",
        f"worker   {record.fence.worker_id}",
        f"action   {record.action}",
        f"written  {written}",
        f"state    {state}",
        f"status   {_status(record)}",
    ]


def _head(entry: SpoolEntry) -> list[str]:
    match entry.outcome:
        case Failed(message=message):
            return ["", *message.split("\n")]
        case Succeeded(Blob() as blob):
            return ["", *_beginning(blob)]
        case _:
            return ["", "(no result)"]


def _beginning(blob: Blob) -> list[str]:
    encoded = os.pread(blob.descriptor, min(MAX_HEAD_BYTES // 3 * 4, blob.size), 0)  # the record follows
    text = base64.b64decode(encoded + b"=" * (-len(encoded) % 4)).decode("utf-8", "replace")
    return [*text.split("\n"), *(["[...]"] if len(encoded) < blob.size else [])]
