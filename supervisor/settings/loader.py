"""Where the settings of `run` come from: command line, environment and file; read at the start and at each reload."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterable, MutableMapping
from pathlib import Path

from supervisor.settings import resolution as config
from supervisor.settings.credential import STANDARD_INPUT, CredentialSource
from supervisor.settings.proxy_source import proxy_to
from supervisor.settings.resolution import NO_FILE_VALUES, CommandLineValues, ConfigError, FileValues, HostInfo
from supervisor.settings.settings import Settings
from supervisor.settings.toml_file import read_settings_file
from supervisor.settings.working_directory import UNKNOWN, working_directory

TO_WATCH = "pip install 'mobius-supervisor[watch]'"
"""What brings the package that watches files."""


class SettingsLoader:
    """What the user gave; of all that, only files can change while the program runs."""

    def __init__(self, given: CommandLineValues, environment: MutableMapping[str, str], machine: HostInfo) -> None:
        """Takes the key out of `environment`.  Raises `ConfigError`."""
        self._given = given
        self._environment = environment
        self._machine = machine
        self._folder = working_directory(environment)
        file: Path | None = config.read_values(["config"], given, environment)["config"]
        self.settings_file = None if file is None else self._folder / file
        key_file = config.read_values(["api_key_file"], given, environment, self._written())["api_key_file"]
        if key_file is not None and key_file != STANDARD_INPUT:
            key_file = self._folder / key_file
        self.source = CredentialSource(key_file, environment)

    def read(self) -> Settings:
        """The settings as they are now.  Raises `ConfigError`."""
        credential = self.source.read() if self.source.is_given else None
        settings = config.resolve(
            self._given,
            self._environment,
            self._machine,
            has_key=credential is not None,
            key_project=credential.project if credential else None,
            written=self._written(),
        )
        proxy_to(settings.base_url, settings.proxy, self._environment)  # a wrong one is refused here
        require_folders(settings.handlers, self._folder)
        if settings.watch:
            require_watchfiles()
        return dataclasses.replace(settings, handlers=tuple(self._folder / each for each in settings.handlers))

    def _written(self) -> FileValues:
        return read_settings_file(self.settings_file) if self.settings_file else NO_FILE_VALUES


def require_folders(folders: Iterable[Path], base: Path = UNKNOWN) -> None:
    """Raise `ConfigError` when one of the handlers' folders, which may be relative to `base`, is not there."""
    for folder in folders:
        try:
            is_there = (base / folder).is_dir()
        except OSError as error:  # above it is a folder that is not ours to look into, or the name is too long
            raise ConfigError(f"--handlers: the folder {str(folder)!r} cannot be read: {error.strerror}") from error
        if not is_there:
            raise ConfigError(f"--handlers: there is no folder {str(folder)!r}")


def require_watchfiles() -> None:
    """Raise `ConfigError` when nothing can be watched."""
    if not can_watch():
        raise ConfigError(f"--watch needs the package watchfiles: {TO_WATCH}")


def can_watch() -> bool:
    """Whether the package is there that watches files."""
    return importlib.util.find_spec("watchfiles") is not None
