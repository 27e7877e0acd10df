"""Where the settings of `run` come from: command line, environment and file; read at the start and at each reload."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, MutableMapping
from pathlib import Path

from supervisor.settings import config
from supervisor.settings.config import NOTHING_WRITTEN, ConfigError, Given, Machine, Written
from supervisor.settings.credential import CredentialSource
from supervisor.settings.proxy_source import proxy_to
from supervisor.settings.settings import Settings
from supervisor.settings.settings_file import read_settings_file

TO_WATCH = "pip install 'mobius-supervisor[watch]'"
"""What brings the package that watches files."""


class Configuration:
    """What the user gave; of all that, only files can change while the program runs."""

    def __init__(self, given: Given, environment: MutableMapping[str, str], machine: Machine) -> None:
        """Takes the key out of `environment`.  Raises `ConfigError`."""
        self._given = given
        self._environment = environment
        self._machine = machine
        key_file = config.read_values(["api_key_file"], given, environment, self._written())["api_key_file"]
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
        require_folders(settings.handlers)
        if settings.watch:
            require_watchfiles()
        return settings

    def _written(self) -> Written:
        path: Path | None = config.read_values(["config"], self._given, self._environment)["config"]
        return read_settings_file(path) if path else NOTHING_WRITTEN


def require_folders(folders: Iterable[Path]) -> None:
    """Raise `ConfigError` when one of the handlers' folders is not there, or out of reach."""
    for folder in folders:
        try:
            is_there = folder.is_dir()
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
