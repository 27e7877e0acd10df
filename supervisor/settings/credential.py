"""Where the API key comes from, and how it is read, again at each reload.  Runs in the parent only.

The key is taken from the file that was named (`-`: standard input), else from the systemd credential, else from the
environment, where it is removed.  It never reaches a log, a `repr`, the command line or a child.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.settings import credential as standard_input
from supervisor.settings.resolution import ConfigError
from supervisor.settings.safe_read import read_regular
from supervisor.settings.value_types import PROJECT_HANDLE
from supervisor.text.decoding import NotText, decode_text

VARIABLE = "MOBIUS_API_KEY"
SYSTEMD_NAME = "mobius-api-key"
STANDARD_INPUT = Path("-")

_DECORATED = re.compile(
    rf"(?P<before>{PROJECT_HANDLE.pattern})/mbx_.+|mbx_.+\.(?P<after>{PROJECT_HANDLE.pattern})", re.DOTALL
)
# What an HTTP header carries without quoting; a space or a line break inside a key is a copying mistake.
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_MAX_KEY_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Credential:
    """A key as it is sent, the project that its decoration names, and what its owner should be told about it."""

    token: str = field(repr=False)
    project: str | None = None
    warning: str | None = None


class CredentialSource:
    """The place the key comes from, decided once; `read` looks there again each time."""

    def __init__(self, key_file: Path | None, environment: MutableMapping[str, str]) -> None:
        """Take the key out of `environment`, whether it is used or not: nothing we start shall find it there."""
        self._from_environment = environment.pop(VARIABLE, "") or None
        self._key_file = key_file
        self._systemd_file = _systemd_file(environment)
        self._systemd_files = _systemd_files(environment)
        self._kept: bytes | None = None
        self._was_read = False
        self._seen_file: Path | None = None  # behind standard input

    @property
    def is_given(self) -> bool:
        """Is there any place to read a key from?"""
        return bool(self._key_file or self._systemd_file or self._from_environment)

    @property
    def file(self) -> Path | None:
        """The file that the key is in, once it was read; None when it comes from elsewhere."""
        return self._seen_file if self._is_standard_input else self._named

    @property
    def secret_files(self) -> list[Path]:
        """The file of the key, once it was read, and all files of systemd's credentials."""
        return [*([self.file] if self.file else []), *self._systemd_files]

    @property
    def place(self) -> str:
        """Where the key comes from, for whoever has to replace it."""
        if self._is_standard_input:
            return "standard input, which is read at the start only"
        return f"{self._named}, which could be read once only" if self._kept else str(self._named or VARIABLE)

    @property
    def _named(self) -> Path | None:
        return self._key_file or self._systemd_file

    @property
    def _is_standard_input(self) -> bool:
        return self._key_file == STANDARD_INPUT

    def read(self) -> Credential:
        """Return the key as it is now.  Raises `ConfigError` when it is missing, unreadable or no key."""
        if self._named:
            shown = "standard input" if self._is_standard_input else str(self._named)
            token = _decode(_without_newline(self._read_file(self._named)), shown)
            return Credential(token, project_of(token), self._warning())
        if self._from_environment:
            token = _decode(self._from_environment.encode("utf-8", "surrogateescape"), VARIABLE)
            return Credential(token, project_of(token))
        raise ConfigError(f"missing: the API key ({VARIABLE} or --api-key-file)")

    def _read_file(self, path: Path) -> bytes:
        if self._kept is not None:
            return self._kept
        if self._is_standard_input:
            self._kept = self._take_standard_input()
            return self._kept
        try:
            content = read_regular(path, _MAX_KEY_BYTES + 1) if self._was_read else self._read_first(path)
        except OSError as error:
            raise ConfigError(f"the API key file {path} cannot be read: {error.strerror}") from error
        if content is None:
            raise ConfigError(f"the API key file {path} must be a regular file, to be read again")
        return content

    def _read_first(self, path: Path) -> bytes:
        """A pipe, as in `--api-key-file <(pass mobius)`, can be read once only, at the start, and is waited for."""
        with path.open("rb") as file:
            content = file.read(_MAX_KEY_BYTES + 1)
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                self._kept = content
        self._was_read = True
        return content

    def _take_standard_input(self) -> bytes:
        try:
            taken = standard_input.read_standard_input(_MAX_KEY_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"the API key cannot be read from standard input: {error.strerror}") from error
        self._seen_file = taken.file
        return taken.content

    def _warning(self) -> str | None:
        # Under systemd an access list, which shows as group bits, lets the service's user in and nobody else.
        if self.file is None or self.file == self._systemd_file:
            return None
        try:
            status = self.file.stat()
        except FileNotFoundError:  # removed since it was standard input
            return None
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
            return None
        return f"other users can read the API key file {self.file}: chmod 600 is safer"

    def __repr__(self) -> str:
        return f"<CredentialSource {self._named or VARIABLE}>"

    def __reduce__(self) -> Any:
        raise TypeError("a credential source never crosses a process border")


def project_of(token: str) -> str | None:
    """Return the project named by `<handle>/mbx_…` or `mbx_….<handle>`; None for a plain key."""
    match = _DECORATED.fullmatch(token)
    return (match["before"] or match["after"]) if match else None


def _systemd_file(environment: MutableMapping[str, str]) -> Path | None:
    folder = environment.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    path = Path(folder) / SYSTEMD_NAME
    return path if path.exists() else None


def _systemd_files(environment: Mapping[str, str]) -> list[Path]:
    folder = environment.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return []
    try:
        return sorted(Path(folder).iterdir())
    except OSError:
        return []


def _without_newline(content: bytes) -> bytes:
    return content[:-2] if content.endswith(b"\r\n") else content.removesuffix(b"\n")


def _decode(content: bytes, place: str) -> str:
    if not content:
        raise ConfigError(f"the API key in {place} is empty")
    if len(content) > _MAX_KEY_BYTES:
        raise ConfigError(f"the API key in {place} is longer than {_MAX_KEY_BYTES} bytes: is it the right file?")
    try:
        token = decode_text(content)
    except NotText as error:
        raise ConfigError(f"the API key in {place} {error}") from None  # its cause holds the bytes of the key
    if not _PRINTABLE.fullmatch(token):
        raise ConfigError(f"the API key in {place} contains spaces, line breaks or other characters that no key has")
    return token


NUMBER = 0


@dataclass(frozen=True, slots=True)
class StandardInputKey:
    """What was read, and the file that it came from, if our user can read that by its name."""

    content: bytes = field(repr=False)
    file: Path | None


def read_standard_input(longest: int) -> StandardInputKey:
    """Read up to `longest` bytes, or the end, and put /dev/null in its place.  Raises `OSError`."""
    if sys.stdin is None:  # it was closed when we came: whatever has its number now is something else
        raise OSError(errno.EBADF, "it is closed")
    if os.isatty(NUMBER):
        raise OSError(errno.ENOTTY, "it is a terminal, which would show the key")
    try:
        return StandardInputKey(_content(longest), _file())
    finally:
        _replace()


def _content(longest: int) -> bytes:
    content = b""
    while len(content) < longest and (piece := os.read(NUMBER, longest - len(content))):
        content += piece
    return content


def _file() -> Path | None:
    status = os.fstat(NUMBER)
    if not stat.S_ISREG(status.st_mode):
        return None
    path = Path(f"/proc/self/fd/{NUMBER}").readlink()
    try:
        is_there = os.path.samestat(path.stat(), status)
    except OSError:  # removed, or hidden from us
        return None
    return path if is_there and (status.st_uid == os.geteuid() or os.access(path, os.R_OK)) else None


def _replace() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, NUMBER)
    os.close(null)
