"""The token in the file of `--listen-token-file`, which allows commands at `--listen`."""

from __future__ import annotations

from pathlib import Path

from supervisor.settings.resolution import ConfigError
from supervisor.settings.safe_read import read_regular
from supervisor.text.decoding import NotText, decode_text

MIN_TOKEN_CHARS = 16
"""Characters; what is shorter can be guessed."""
MAX_TOKEN_CHARS = 1024
"""Bytes of the file; what is longer is no token, and fits into no header."""


def read_token(path: Path) -> str:
    """The token in a file, without the white space around it; raise `ConfigError`."""
    try:
        token = decode_text(_content(path)).strip()
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from error
    except NotText as error:
        raise _refused(path, str(error)) from error
    if len(token) < MIN_TOKEN_CHARS:
        raise _refused(path, f"must hold a token of at least {MIN_TOKEN_CHARS} characters")
    if not token.isprintable() or " " in token:
        raise _refused(path, "must hold one token, without white space in it")
    return token


def _content(path: Path) -> bytes:
    content = read_regular(path, MAX_TOKEN_CHARS + 1)
    if content is None:
        raise _refused(path, "must be a regular file")
    if len(content) > MAX_TOKEN_CHARS:
        raise _refused(path, f"is longer than {MAX_TOKEN_CHARS} bytes: is it the right file?")
    return content


def _refused(path: Path, why: str) -> ConfigError:
    return ConfigError(f"--listen-token-file: {path} {why}")
