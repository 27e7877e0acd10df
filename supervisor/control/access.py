"""Access rules of the control endpoints: which peer may read and which may write.

Unix socket: the supervisor's user and root may read and write; jobs of that user may only read.  TCP: every peer may
read; a peer with the token may write.  Both reject requests that a browser sends for a page of another origin.  The
only I/O is reading user names and the token file.
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
    """A rejected request: its HTTP status and a one-sentence message.  Caught by `ControlRoutes`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class AccessPolicy(Protocol):
    """The access rules of one endpoint."""

    @property
    def access(self) -> Access: ...

    @property
    def name(self) -> str:
        """The name of the endpoint in log lines."""

    def identify(self, connection: ConnectedSocket) -> Peer:
        """Return the peer of a connection.  Called when the connection is accepted."""

    def caller(self, peer: Peer) -> Caller:
        """Return the caller to which the connection limit charges this connection, before a request arrives."""

    def check_read(self, peer: Peer, headers: Mapping[str, str], *, is_probe: bool) -> None:
        """Raise `AccessDenied` if the peer may not read."""

    def check_write(self, peer: Peer, headers: Mapping[str, str]) -> str:
        """Return the peer's name for the log and for reports; raise `AccessDenied` if the peer may not write."""


class UnixSocketPolicy:
    """Rules of the control socket, where the kernel reports each peer's user and pid.

    Jobs run as the supervisor's own user.  `belongs_to_job` recognizes their processes, which may only read.
    """

    access = Access.STEER
    name = "the control socket"

    def __init__(self, belongs_to_job: Callable[[int], bool]) -> None:
        self._belongs_to_job = belongs_to_job

    def identify(self, connection: ConnectedSocket) -> Peer:
        return identify(connection, self._belongs_to_job)

    def caller(self, peer: Peer) -> Caller:
        is_operator = peer.standing is Standing.OPERATOR and peer.uid in (0, os.geteuid())
        return Caller(peer.identity, is_privileged=True) if is_operator else Caller("jobs")

    def check_read(self, peer: Peer, headers: Mapping[str, str], *, is_probe: bool) -> None:
        _check_origin(headers, (), is_probe=is_probe)
        if peer.uid not in (0, os.geteuid()):
            raise AccessDenied(403, f"{_named(peer.uid)} is neither the user of this supervisor nor root")

    def check_write(self, peer: Peer, headers: Mapping[str, str]) -> str:  # noqa: ARG002 - see AccessPolicy
        if peer.standing is Standing.GONE:
            raise AccessDenied(403, "the process that connected has ended, and could have been a job's")
        if peer.standing is Standing.JOB:
            raise AccessDenied(403, "a job cannot steer the supervisor that runs it")
        return f"{_named(peer.uid)} over the control socket"


@dataclass(frozen=True, slots=True)
class TcpPolicy:
    """Rules of the `--listen` address.  Without a `token` (None) every write is rejected.

    `names` are the values of `--listen-name` in lower case.
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

    def check_read(self, peer: Peer, headers: Mapping[str, str], *, is_probe: bool) -> None:  # noqa: ARG002 - see AccessPolicy
        _check_origin(headers, {self.host.lower(), *self.names}, is_probe=is_probe)

    def check_write(self, peer: Peer, headers: Mapping[str, str]) -> str:  # noqa: ARG002 - see AccessPolicy
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
    problem = host_error(headers, our_names, is_probe=is_probe)
    if problem is not None:
        raise AccessDenied(421, problem)


ANY_NAME = "*"
"""An entry of `our_names` that lets probes use any `Host`."""


def host_error(headers: Mapping[str, str], our_names: Collection[str], *, is_probe: bool = False) -> str | None:
    """Return why a request could come from a web page of another origin; None if it cannot.

    Probes read no secret and change nothing.  A probe may omit `Host`, because every browser sends one, and may use any
    `Host` if `our_names` contains `ANY_NAME`.
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
    """True if the browser follows a link.  The linking page cannot read the result, and a form sends its `Origin`."""
    return (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")) == ("navigate", "document")


def _is_ours(header: str, our_names: Collection[str]) -> bool:
    """True if a `Host` is an IP address, which DNS cannot rebind, or one of `our_names`."""
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    name = name.rstrip(".")  # a fully qualified name may end with the dot of the DNS root
    if name in ("localhost", socket.gethostname().lower()) or name in our_names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


MIN_TOKEN_CHARS = 16
"""Shorter tokens can be guessed."""
MAX_TOKEN_BYTES = 1024
"""Limit of the token file.  A longer token would not fit into a header."""


def read_token(path: Path) -> str:
    """Return the token in a file without surrounding white space; raise `ConfigError` if it is not usable."""
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
    content = read_regular(path, MAX_TOKEN_BYTES + 1)
    if content is None:
        raise _refused(path, "must be a regular file")
    if len(content) > MAX_TOKEN_BYTES:
        raise _refused(path, f"is longer than {MAX_TOKEN_BYTES} bytes: is it the right file?")
    return content


def _refused(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"--listen-token-file: {path} {reason}")
