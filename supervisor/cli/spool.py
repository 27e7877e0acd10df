"""The `spool` commands: show people what lies in the spool, drop it; also while the service runs.

What the service has in hands at the moment is shown and left alone.  What sends it is `resending`, so that nobody waits
for a client to be loaded who only looks.
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
"""Where `StateDirectory=` of the units makes folders; an operator's shell does not know `$STATE_DIRECTORY`."""
IN_HOME = Path(".local/state/mobius-supervisor")
"""Where a user's supervisor keeps its state, below the home, unless its environment says otherwise."""
MAX_HEAD_CHARS = 1200
"""Bytes of a result that are shown."""

_HEADINGS = ("JOB", "ATTEMPT", "ACTION", "STATUS", "SIZE", "AGE", "STATE", "FILE")


def list_all(spool: Spool, others: Sequence[tuple[Path, int]] = ()) -> None:
    """Print everything as a table; of an empty spool, how many outcomes `others` hold."""
    found = spool.find(*SpoolFolder)
    if found:
        click.echo(aligned([_HEADINGS, *(_row(spool, each) for each in found)]))
        return
    click.echo(f"nothing in {spool.folder}", err=True)
    for path, count in others:
        click.echo(f"{count} in {escaped(str(path))}/spool: show them with --state-dir {escaped(str(path))}", err=True)


def show(spool: Spool, name: str) -> None:
    """Print whose outcome it is, and how it begins; raise `ConfigError`."""
    found = _chosen(spool, name)
    entry = _seen(spool, found)
    try:
        lines = [*_about(entry.record, _state(spool, found)), *_head(entry)]
    finally:
        entry.close()
    click.echo("\n".join(map(escaped, lines)))


def drop(spool: Spool, name: str, *, is_sure: bool) -> None:
    """Delete an outcome for ever; raise `ConfigError`."""
    found = _chosen(spool, name)
    if not is_sure:
        raise ConfigError(f"dropping {found.path.name} cannot be undone: add --yes")
    if found.spool_folder is SpoolFolder.DAMAGED:
        spool.discard(found.path)
    else:
        _taken(spool, found).remove()
    click.echo(f"dropped {found.path.name}")


def state_dir_of(environment: Mapping[str, str], home: Path | None) -> Path:
    """The state directory of the supervisor of this host, where nobody says which; raise `ConfigError`.

    It is this user's own, or that of the service or one of its instances, if we may look into it.
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
    """State directories of this host, other than `state_dir`, that keep outcomes, and how many each keeps.

    They are those of the services and of users, whose homes are `accounts`.
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
    """The spool of a state directory; raise `ConfigError` when that is not there, or cannot be looked into.

    A slip in its name must not read as if all outcomes were with the server.  Root becomes the directory's owner.
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
    """How many outcomes a state directory keeps; 0 when it cannot be read."""
    try:
        with Directory.open(state_dir) as state, Identity.owner(state).borrowed():
            return len(Spool(state_dir, state=state).find(*SpoolFolder))
    except OSError:
        return 0


def _listed(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))


def _row(spool: Spool, found: SpoolFile) -> tuple[str, ...]:
    note = found.record
    told = ("-", "-", "-", "-") if note is None else _told(note)
    since = found.changed_at if note is None else note.written_at
    age = format_duration(max(0, round(time.time() - since)))
    return (*told, format_size(found.size), age, _state(spool, found), found.path.name)


def _told(note: SpoolRecord) -> tuple[str, ...]:
    return (shown_name(note.fence.job_id), str(note.fence.attempt), shown_name(note.action), _status(note))


def _status(note: SpoolRecord) -> str:
    return "completed" if note.failed is None else f"failed {escaped(note.failed.error_type)}"


def _state(spool: Spool, found: SpoolFile) -> str:
    if found.spool_folder is not SpoolFolder.WAITING:
        return found.spool_folder.name.lower()
    return "in hands" if spool.is_locked(found.path) else "waiting"


def _chosen(spool: Spool, name: str) -> SpoolFile:
    """The one outcome with this name: that of its file, its job, or `job#attempt`."""
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
    """An outcome to be read, also while it is in other hands."""
    try:
        return spool.read(found.path)
    except FileNotFoundError:
        raise _gone(found) from None
    except CorruptSpoolFile:
        raise _damaged(found) from None
    except OSError as error:
        raise ConfigError(f"{found.path.name} cannot be read: {error.strerror or error}") from error


def _taken(spool: Spool, found: SpoolFile) -> SpoolEntry:
    """An outcome for us alone."""
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


def _about(note: SpoolRecord, state: str) -> list[str]:
    written = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(note.written_at))
    return [
        f"server   {note.destination.base_url}",
        f"project  {note.destination.project}",
        f"job      {note.fence.job_id}",
        f"attempt  {note.fence.attempt}",
        f"worker   {note.fence.worker_id}",
        f"action   {note.action}",
        f"written  {written}",
        f"state    {state}",
        f"status   {_status(note)}",
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
    encoded = os.pread(blob.descriptor, min(MAX_HEAD_CHARS // 3 * 4, blob.size), 0)  # the file goes on, with the note
    text = base64.b64decode(encoded + b"=" * (-len(encoded) % 4)).decode("utf-8", "replace")
    return [*text.split("\n"), *(["[...]"] if len(encoded) < blob.size else [])]
