"""Who may come in, and what for.  Pure, but for the names of users.

Over the unix socket: this user and root, for everything; this user's jobs, to look.  Over TCP: everybody, to look;
whoever has the token, for everything.  By neither way for a browser that a page from elsewhere has sent (see `origin`).
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import pwd
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from supervisor.control.connection_limit import Caller
from supervisor.control.peer import ConnectedSocket, Peer, Standing, identify, identify_address
from supervisor.page.document import Access
from supervisor.settings.resolution import ConfigError
from supervisor.settings.safe_read import read_regular
from supervisor.text.decoding import NotText, decode_text


class AccessDenied(Exception):
    """The request is refused with this status; the text is one sentence.  Caught by the site."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class AccessPolicy(Protocol):
    """One way in."""

    @property
    def access(self) -> Access: ...

    @property
    def name(self) -> str:
        """The name of this way in, for the log."""

    def identify(self, connection: ConnectedSocket) -> Peer:
        """Return who has connected; called when the connection is accepted."""

    def caller(self, peer: Peer) -> Caller:
        """Return whose connection this counts as, before a request has come."""

    def check_read(self, peer: Peer, headers: Mapping[str, str], *, is_probe: bool) -> None:
        """Let a visitor look; raise `NotAdmitted`."""

    def check_write(self, peer: Peer, headers: Mapping[str, str]) -> str:
        """Let a visitor change things; return who it is, for the log and for reports.  Raise `NotAdmitted`."""


class UnixSocketPolicy:
    """For processes of this host, whose user and pid the kernel tells.

    Jobs run as our own user: `is_of_a_job` tells their processes, which may look and no more.
    """

    access = Access.STEER
    name = "the control socket"

    def __init__(self, is_of_a_job: Callable[[int], bool]) -> None:
        self._is_of_a_job = is_of_a_job

    def identify(self, connection: ConnectedSocket) -> Peer:
        return identify(connection, self._is_of_a_job)

    def caller(self, peer: Peer) -> Caller:
        is_operator = peer.standing is Standing.OPERATOR and peer.uid in (0, os.geteuid())
        return Caller(peer.identity, is_privileged=True) if is_operator else Caller("jobs")

    def check_read(self, peer: Peer, headers: Mapping[str, str], *, is_probe: bool) -> None:
        _check_origin(headers, (), is_probe=is_probe)
        if peer.uid not in (0, os.geteuid()):
            raise AccessDenied(403, f"{_named(peer.uid)} is neither the user of this supervisor nor root")

    def check_write(self, peer: Peer, headers: Mapping[str, str]) -> str:  # noqa: ARG002 - see Door
        if peer.standing is Standing.GONE:
            raise AccessDenied(403, "the process that connected has ended, and could have been a job's")
        if peer.standing is Standing.JOB:
            raise AccessDenied(403, "a job cannot steer the supervisor that runs it")
        return f"{_named(peer.uid)} over the control socket"


@dataclass(frozen=True, slots=True)
class TcpPolicy:
    """For everybody who reaches the address; `token` is None when nobody is to change anything.

    `names` are those of `--listen-name`, in lower case.
    """

    host: str
    token: str | None
    names: frozenset[str] = frozenset()

    @property
    def access(self) -> Access:
        return Access.LOOK if self.token is None else Access.UNLOCK

    @property
    def name(self) -> str:
        return "--listen"

    def identify(self, connection: ConnectedSocket) -> Peer:
        return identify_address(connection)

    def caller(self, peer: Peer) -> Caller:
        return Caller(peer.identity)

    def check_read(self, peer: Peer, headers: Mapping[str, str], *, is_probe: bool) -> None:  # noqa: ARG002 - see Door
        _check_origin(headers, {self.host.lower(), *self.names}, is_probe=is_probe)

    def check_write(self, peer: Peer, headers: Mapping[str, str]) -> str:  # noqa: ARG002 - see Door
        if self.token is None:
            raise AccessDenied(403, "commands are taken over the control socket, or here with --listen-token-file")
        expected = f"Bearer {self.token}".encode()
        if not hmac.compare_digest(headers.get("Authorization", "").encode("utf-8", "surrogateescape"), expected):
            raise AccessDenied(401, "the token is missing or wrong")
        return f"a holder of the token by {self.host}"


def _named(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _check_origin(headers: Mapping[str, str], our_names: Collection[str], *, is_probe: bool) -> None:
    said = host_error(headers, our_names, is_probe=is_probe)
    if said is not None:
        raise AccessDenied(421, said)


ANY_NAME = "*"
"""Among the names that are ours: probes may come by any name."""


def host_error(headers: Mapping[str, str], our_names: Collection[str], *, is_probe: bool = False) -> str | None:
    """Why a request is not one of our own page's, nor of a program; None when it may be.

    A probe changes nothing and shows no secret: it may lack a `Host`, as every browser sends one, and with `ANY_NAME`
    it may have any.
    """
    host = headers.get("Host", "")
    is_plain = is_probe and ("Host" not in headers or ANY_NAME in our_names)
    if not is_plain and not _is_ours(host, our_names):
        return "this is not the address that is listened on; --listen-name allows another name"
    origin = headers.get("Origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return "pages from elsewhere are not answered"
    if headers.get("Sec-Fetch-Site") in ("cross-site", "same-site") and not _is_a_link(headers):
        return "pages from elsewhere are not answered"
    return None


def _is_a_link(headers: Mapping[str, str]) -> bool:
    """Whether a link to us was followed: a page cannot read what its viewer sees then, and a form names its origin."""
    return (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")) == ("navigate", "document")


def _is_ours(header: str, our_names: Collection[str]) -> bool:
    """Whether a `Host` names us: by an address, which no name server can turn elsewhere, or by a name that is ours."""
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    name = name.rstrip(".")  # a name may be written with the root of all domains
    if name in ("localhost", socket.gethostname().lower()) or name in our_names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


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
