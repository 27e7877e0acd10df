"""The file of settings: TOML, a key per option of `run`, named as on the command line.

It is read at the start and at each reload; command line and environment win over it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from supervisor.settings.option import Option
from supervisor.settings.resolution import ConfigError, FileValues
from supervisor.settings.safe_read import read_regular
from supervisor.settings.settings import CONFIG, OPTIONS
from supervisor.settings.suggestions import nearest
from supervisor.text.decoding import NotText, decode_text

MAX_FILE_BYTES = 1024 * 1024
"""Bytes of the file; what is longer is something else."""

_BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS.values() if option is not CONFIG}


def read_settings_file(path: Path) -> FileValues:
    """What the file says; raises `ConfigError` when it cannot be read or says what is no setting."""
    try:
        return parse_settings(decode_text(_content(path)), str(path))
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror or error}") from error
    except NotText as error:
        raise ConfigError(f"the settings file {path} {error}") from error


def parse_settings(text: str, path: str) -> FileValues:
    """As `read_settings_file`, for text that was read from `path`."""
    try:
        table = tomllib.loads(text)
        return FileValues(path, {_option(name, path).key: _texts(name, value, path) for name, value in table.items()})
    except ValueError as error:  # also what Python says of a number with thousands of digits
        raise ConfigError(f"{path}: not TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path}: not TOML: nested too deeply") from None


def _content(path: Path) -> bytes:
    content = read_regular(path, MAX_FILE_BYTES + 1)
    if content is None:
        raise ConfigError(f"the settings file {path} must be a regular file")
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"the settings file {path} is longer than 1 MiB: is it the right file?")
    return content


def _option(name: str, path: str) -> Option:
    option = _BY_NAME.get(name)
    if option is None:
        meant = nearest(name, _BY_NAME)
        raise ConfigError(f"{path}: there is no setting {name!r}" + (f"; is it {meant!r}?" if meant else ""))
    return option


def _texts(name: str, value: object, path: str) -> tuple[str, ...]:
    """`value` as it would be typed."""
    if _BY_NAME[name].kind.is_repeatable:
        values = value if isinstance(value, list) else [value]
        if values and all(isinstance(each, str) for each in values):
            return tuple(values)
        raise ConfigError(f"{path}: {name}: must be a text or a list of texts")
    if not isinstance(value, str | int | float):
        raise ConfigError(f"{path}: {name}: must be a text, a number, true or false")
    return (str(value).lower() if isinstance(value, bool) else str(value),)
