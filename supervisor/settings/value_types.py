"""The kinds of values that settings have: how each is read from text.  Pure: no I/O, no environment.

A reader takes what a user wrote and returns the value, or raises `ValueError` with the rest of a sentence that begins
with the setting's name: "must be at least 1, not '0'".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from supervisor.text.duration import parse_duration
from supervisor.text.size import parse_size

MAX_WORKERS = 1024
"""Children of one program: more are a slip, and would take the machine's memory before anything could be said."""

PROJECT_HANDLE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNREAD = re.compile(r"[\ud800-\udfff]")
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_LEVELS = {"debug": "debug", "info": "info", "warn": "warning", "warning": "warning", "error": "error"}
_FORMATS = ("auto", "console", "json")
# What tells a child whose program it runs in, or lets it speak for the supervisor; no handler may ask for it.
_NEVER_PASSED = re.compile(
    r"MOBIUS_API_KEY|CREDENTIALS_DIRECTORY|NOTIFY_SOCKET|WATCHDOG_\w+|LISTEN_\w+|JOURNAL_STREAM|INVOCATION_ID"
)


@dataclass(frozen=True, slots=True)
class ValueType:
    """A kind of value; `separator` is set where several may be given, in one text or in several."""

    read: Callable[[str], Any]
    metavar: str = ""
    separator: str | None = None
    is_switch: bool = False

    @property
    def is_repeatable(self) -> bool:
        return self.separator is not None


@dataclass(frozen=True, slots=True)
class Share:
    """An amount of something: so many bytes, or a part of all there is."""

    size: int = 0
    part: float = 0.0

    def of(self, total: int) -> int:
        """In bytes, when there are `total`."""
        return self.size or round(self.part * total)


def _read_workers(text: str) -> int | None:
    if text.lower() == "auto":
        return None
    if not re.fullmatch(r"-?[0-9]{1,99}", text):
        raise ValueError(f"must be a whole number or 'auto', not {text!r}")
    if int(text) < 1:
        raise ValueError(f"must be at least 1, not {text!r}")
    if int(text) > MAX_WORKERS:
        raise ValueError(f"must be at most {MAX_WORKERS:,}, not {text!r}")
    return int(text)


def _read_path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError(f"must be a path, not {text!r}")
    return Path(text)


def _read_name(text: str) -> str:
    """Read an identifier that goes to the server, to logs and to terminals."""
    if not text.strip():
        raise ValueError("must not be empty")
    if _UNREAD.search(text):
        raise ValueError(_unread(text))
    if _UNPRINTABLE.search(text):
        raise ValueError(f"must not contain control characters: {text!r}")
    if len(text) > 200:
        raise ValueError(f"must have at most 200 characters, not {len(text)}")
    return text


def _unread(text: str) -> str:
    """What is wrong with a text in which Python has kept bytes that it could not read (PEP 383)."""
    try:
        meant = text.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        return f"must be UTF-8, not {text!r}"
    return f"must be text that the locale can read, not {meant!r}: set LC_ALL=C.UTF-8"


def _read_project(text: str) -> str:
    if not PROJECT_HANDLE.fullmatch(text):
        raise ValueError(
            f"must be a project handle such as 'acme' or 'acme-video' (a-z, 0-9, single '-'), not {text!r}"
        )
    return text


def _read_url(text: str) -> str:
    """Read the address of a server and return it without a trailing slash, so that paths can be appended."""
    parts = _split_url(text)
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user name or password")
    if parts.query or parts.fragment:
        raise ValueError(f"must end with the path, without '?' or '#': {text!r}")
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def _split_url(text: str) -> SplitResult:
    wrong = ValueError(f"must be a URL such as 'https://api.example.com', not {text!r}")
    try:
        parts = urlsplit(text)
        has_bad_port = parts.port == 0  # reading the port is what checks it
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or has_bad_port:
        raise wrong
    if _UNPRINTABLE.search(text) or " " in text or "\\" in text:
        raise wrong
    return parts


def is_in_clear(url: str) -> bool:
    """Would a key sent to `url` cross a network unencrypted?"""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_proxy(text: str) -> str:
    """Read the address of a proxy; the text of the error never shows it, for it may hold a password."""
    if text in ("env", "off"):
        return text
    wrong = ValueError("must be 'env', 'off' or the address of an HTTP proxy, such as 'http://proxy.example:3128'")
    try:
        parts = urlsplit(text)
        is_bad = parts.port == 0  # reading the port is what checks it
    except ValueError:
        raise wrong from None
    if is_bad or parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise wrong
    if parts.query or parts.fragment or _UNPRINTABLE.search(text) or " " in text:
        raise wrong
    return text


def _read_positive_duration(text: str) -> float:
    seconds = parse_duration(text)
    if seconds == 0:
        raise ValueError(f"must be longer than nothing, not {text!r}")
    return seconds


def _read_count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise ValueError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)


def _read_share(text: str) -> Share:
    match = re.fullmatch(r"([0-9]{1,2}(?:\.[0-9]+)?)\s*%", text.strip())
    if text.strip().lower() in ("off", "0"):
        return Share()
    if match:
        return Share(part=float(match[1]) / 100)
    try:
        return Share(size=parse_size(text))
    except ValueError:
        raise ValueError(
            f"must be a size such as '512MiB', a part below 100% such as '5%', or 'off', not {text!r}"
        ) from None


def _read_niceness(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,2}", text) or int(text) > 19:
        raise ValueError(f"must be a whole number from 0 to 19, not {text!r}")
    return int(text)


def _read_wait(text: str) -> float:
    # The server's long poll takes at most 30 s; asking for more is not worth an error.
    return min(parse_duration(text), 30.0)


def _read_address(text: str) -> tuple[str, int]:
    """Read where to listen: the port is the part behind the last colon, for an IPv6 address has some too."""
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535 or _UNPRINTABLE.search(host):
        raise ValueError(f"must be a host and a port, such as '127.0.0.1:9187', not {text!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _read_host_name(text: str) -> str:
    """Read a name as it stands in a `Host` header, where the root of all domains may end it; `*` is any."""
    if text != "*" and not _HOST_NAME.fullmatch(text):
        raise ValueError(f"must be a host name without a port, such as 'render-07.example', or '*', not {text!r}")
    return text.rstrip(".").lower()


def _read_variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise ValueError(f"must be the name of an environment variable, not {text!r}")
    if _NEVER_PASSED.fullmatch(text):
        raise ValueError(f"must not name {text}: handlers never see it")
    return text


def _read_level(text: str) -> str:
    if text.lower() not in _LEVELS:
        raise ValueError(f"must be one of debug, info, warning, error, not {text!r}")
    return _LEVELS[text.lower()]


def _read_format(text: str) -> str:
    if text.lower() not in _FORMATS:
        raise ValueError(f"must be one of {', '.join(_FORMATS)}, not {text!r}")
    return text.lower()


def _read_switch(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise ValueError(f"must be 1 or 0, true or false, yes or no, on or off, not {text!r}")
    return _SWITCH[text.lower()]


WORKERS = ValueType(_read_workers, "N|auto")
PATH = ValueType(_read_path, "PATH")
FOLDERS = ValueType(_read_path, "DIR", separator=":")
NAME = ValueType(_read_name, "TEXT")
NAMES = ValueType(_read_name, "NAME", separator=",")
PROJECT = ValueType(_read_project, "HANDLE")
URL = ValueType(_read_url, "URL")
PROXY = ValueType(read_proxy, "URL|env|off")
DURATION = ValueType(parse_duration, "DURATION")
POSITIVE_DURATION = ValueType(_read_positive_duration, "DURATION")
SIZE = ValueType(parse_size, "SIZE")
SHARE = ValueType(_read_share, "SIZE|N%|off")
COUNT = ValueType(_read_count, "N")
NICENESS = ValueType(_read_niceness, "0..19")
WAIT = ValueType(_read_wait, "SECONDS")
ADDRESS = ValueType(_read_address, "HOST:PORT")
HOST_NAMES = ValueType(_read_host_name, "NAME", separator=",")
VARIABLES = ValueType(_read_variable, "NAME", separator=",")
LEVEL = ValueType(_read_level, "debug|info|warning|error")
FORMAT = ValueType(_read_format, "auto|console|json")
SWITCH = ValueType(_read_switch, is_switch=True)
