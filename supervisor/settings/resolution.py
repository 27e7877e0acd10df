"""The values of the settings: found in what was typed, in the environment, in a file, or computed.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.settings import value_types as kinds
from supervisor.settings.option import Option
from supervisor.settings.settings import OPTIONS, Settings
from supervisor.settings.value_types import ValueType


class ConfigError(Exception):
    """What the user asked for cannot be done; the text is one clear sentence.  Caught by `cli`, which exits with 2."""


@dataclass(frozen=True, slots=True)
class RawValue:
    """What was given for an option: the texts, where they come from, and how near to the user that is (0 nearest)."""

    texts: tuple[str, ...]
    origin: str
    rank: int


# What the command line gave, by `Option.key`: texts as they were typed; absent or None when it gave nothing.
CommandLineValues = Mapping[str, tuple[str, ...] | None]


@dataclass(frozen=True, slots=True)
class FileValues:
    """What a settings file says, by `Option.key`: texts as they would be typed."""

    path: str = ""
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


NO_FILE_VALUES = FileValues()


@dataclass(frozen=True, slots=True)
class HostInfo:
    """Where the program runs, as far as defaults depend on it; `random` makes generated worker ids differ.

    `home` is None where nobody knows it: a user need not have one.
    """

    cpus: int
    host: str
    pid: int
    random: str
    home: Path | None


def resolve(
    given: CommandLineValues,
    environment: Mapping[str, str],
    machine: HostInfo,
    *,
    has_key: bool,
    key_project: str | None,
    written: FileValues = NO_FILE_VALUES,
) -> Settings:
    """Return the settings: the command line wins over the environment, that over the file, that over the defaults.

    `key_project` is the project that the API key names.  Raises `ConfigError` as `read_values` and `complete` do, and
    for a wrong value in the file also where something wins over it: it would come to light when that is taken away.
    """
    _check(written)
    answers = {name: _answer(option, given, environment, written) for name, option in OPTIONS.items()}
    values = {name: _read(OPTIONS[name], answer) for name, answer in answers.items()}
    complete(values, has_key=has_key, key_project=key_project)
    if _are_all_queues_meant(values, answers):
        values["queues"] = ()
    computed = _computed_defaults(environment, machine, values)
    fields: dict[str, Any] = {
        each.name: computed.get(each.name) if values[each.name] is None else values[each.name]
        for each in dataclasses.fields(Settings)
    }
    return Settings(**fields)


def keep_fixed(old: Settings, new: Settings) -> tuple[Settings, list[str]]:
    """`new` as far as it can be taken over at run time, and the names of the options for which it cannot."""
    fixed = {each.name: getattr(old, each.name) for each in dataclasses.fields(old) if OPTIONS[each.name].is_fixed}
    refused = [OPTIONS[name].flag for name, value in fixed.items() if value != getattr(new, name)]
    return dataclasses.replace(new, **fixed), refused


def read_values(
    names: Iterable[str], given: CommandLineValues, environment: Mapping[str, str], written: FileValues = NO_FILE_VALUES
) -> dict[str, Any]:
    """Return the values of the options `names` alone, for a command that needs no more; None where there is none.

    Raises `ConfigError`, which says where a wrong value comes from.
    """
    return {name: _read(OPTIONS[name], _answer(OPTIONS[name], given, environment, written)) for name in names}


def complete(values: dict[str, Any], *, has_key: bool, key_project: str | None) -> None:
    """Take over the project that the key names, and see that all that a server must be told is there.

    Raises `ConfigError`; for what is missing it is one that names everything at once, the key included.
    """
    values["project"] = _agreed_project(values["project"], key_project)
    _require(values, has_key=has_key)
    _refuse_clear_text(values)


def _answer(
    option: Option, given: CommandLineValues, environment: Mapping[str, str], written: FileValues
) -> RawValue | None:
    typed = given.get(option.key)
    if typed:
        return RawValue(typed, option.flag, 0)
    for rank, variable in enumerate(option.variables, 1):
        # Set but empty is how a unit's environment file or a shell script says "not set".
        if environment.get(variable):
            return RawValue((environment[variable],), variable, rank)
    return _answer_in(written, option) or (RawValue((option.default,), option.flag, 99) if option.default else None)


def _answer_in(written: FileValues, option: Option) -> RawValue | None:
    texts = written.texts.get(option.key)
    return None if texts is None else RawValue(texts, f"{written.path}: {option.name}", 50)


def _check(written: FileValues) -> None:
    for option in OPTIONS.values():
        _read(option, _answer_in(written, option))


def _read(option: Option, answer: RawValue | None) -> Any:
    if answer is None:
        return () if option.kind.is_repeatable else None
    try:
        if not option.kind.is_repeatable:
            return option.kind.read(answer.texts[-1])
        return tuple(dict.fromkeys(map(option.kind.read, _pieces(option.kind, answer.texts))))
    except ValueError as error:
        raise ConfigError(f"{answer.origin}: {error}") from error


def _pieces(kind: ValueType, texts: tuple[str, ...]) -> list[str]:
    pieces = [piece.strip() for text in texts for piece in text.split(kind.separator)]
    named = [piece for piece in pieces if piece]
    if not named:
        raise ValueError("must not be empty")
    return named


def _require(values: Mapping[str, Any], *, has_key: bool) -> None:
    missing = [
        f"{option.flag} (or {option.aliases[0]})"
        for name, option in OPTIONS.items()
        if option.is_required and name in values and values[name] is None
    ]
    if not has_key:
        missing.append("the API key (MOBIUS_API_KEY or --api-key-file)")
    if missing:
        raise ConfigError(f"missing: {', '.join(missing)}")


def _refuse_clear_text(values: Mapping[str, Any]) -> None:
    if kinds.is_in_clear(values["base_url"]) and not values["allow_http"]:
        raise ConfigError(
            f"the API key would travel unencrypted to {values['base_url']}: use https, "
            "or --allow-http where the network can be trusted"
        )


def _agreed_project(project: str | None, key_project: str | None) -> str | None:
    if project and key_project and project != key_project:
        raise ConfigError(f"the project is {project!r}, but the API key belongs to {key_project!r}")
    return project or key_project


def _are_all_queues_meant(values: Mapping[str, Any], answers: Mapping[str, RawValue | None]) -> bool:
    every, some = answers["all_queues"], answers["queues"]
    if not values["all_queues"] or every is None or some is None:
        return False
    if every.rank == some.rank:
        raise ConfigError(f"{some.origin} and {every.origin} exclude each other")
    return every.rank < some.rank


def _computed_defaults(environment: Mapping[str, str], machine: HostInfo, values: Mapping[str, Any]) -> dict[str, Any]:
    workers: int | None = values["workers"]
    return {
        "workers": machine.cpus,
        "threads": max(1, machine.cpus // (workers or machine.cpus)),
        "worker_id": f"{machine.host[:150]}-{machine.pid}-{machine.random}",
        "state_dir": values["state_dir"] or default_state_dir(environment, machine.home),
    }


def default_state_dir(environment: Mapping[str, str], home: Path | None) -> Path:
    """Where the state is kept when nobody says where; raise `ConfigError` when that is in a home, and there is none."""
    # systemd joins several state directories by ':'; the first is the service's own.
    given = environment.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    base = environment.get("XDG_STATE_HOME", "")
    # The base directory specification: a relative path is invalid and to be ignored.
    if base.startswith("/"):
        return Path(base) / "mobius-supervisor"
    if home is None:
        raise ConfigError("this user has no home folder, and HOME is not set: give --state-dir")
    return home / ".local" / "state" / "mobius-supervisor"
