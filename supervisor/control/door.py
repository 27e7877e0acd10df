"""Who may come in, and what for.  Pure, but for the names of users.

Over the unix socket: this user and root, for everything.  Over TCP: everybody, to look; whoever has the token, for
everything.  No browser may be made to come here by a page from elsewhere: names that are not ours are refused
(DNS rebinding), and nothing is allowed to other origins.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import pwd
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from supervisor.page.document import Access


class NotAdmitted(Exception):
    """The request is refused with this status; the text is one sentence.  Caught by the site."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Peer(Protocol):
    """The other end of a connection, as sockets tell of it."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


class Door(Protocol):
    """One way in."""

    @property
    def access(self) -> Access: ...

    def admit(self, peer: Peer, headers: Mapping[str, str]) -> None:
        """Let a visitor look; raise `NotAdmitted`."""

    def admit_operator(self, peer: Peer, headers: Mapping[str, str]) -> str:
        """Let a visitor change things; return who it is, for the log and for reports.  Raise `NotAdmitted`."""


class UnixDoor:
    """For processes of this host, whose user the kernel tells."""

    access = Access.STEER

    def admit(self, peer: Peer, headers: Mapping[str, str]) -> None:  # noqa: ARG002 - see Door
        uid = _uid_of(peer)
        if uid not in (0, os.geteuid()):
            raise NotAdmitted(403, f"{_named(uid)} is neither the user of this supervisor nor root")

    def admit_operator(self, peer: Peer, headers: Mapping[str, str]) -> str:  # noqa: ARG002 - see Door
        return f"{_named(_uid_of(peer))} by the control socket"


@dataclass(frozen=True, slots=True)
class TcpDoor:
    """For everybody who reaches the address; `token` is None when nobody is to change anything."""

    host: str
    token: str | None

    @property
    def access(self) -> Access:
        return Access.LOOK if self.token is None else Access.UNLOCK

    def admit(self, peer: Peer, headers: Mapping[str, str]) -> None:  # noqa: ARG002 - see Door
        if not _is_ours(headers.get("Host", ""), self.host):
            raise NotAdmitted(421, "this is not the address that --listen names")

    def admit_operator(self, peer: Peer, headers: Mapping[str, str]) -> str:  # noqa: ARG002 - see Door
        if self.token is None:
            raise NotAdmitted(403, "commands are taken over the control socket, or here with --listen-token-file")
        expected = f"Bearer {self.token}".encode()
        if not hmac.compare_digest(headers.get("Authorization", "").encode("utf-8", "surrogateescape"), expected):
            raise NotAdmitted(401, "the token is missing or wrong")
        return f"a holder of the token by {self.host}"


def _uid_of(peer: Peer) -> int:
    _, uid, _ = struct.unpack("iII", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII")))
    return int(uid)


def _named(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _is_ours(header: str, listened_on: str) -> bool:
    """Whether a `Host` names us: by an address, which no name server can turn elsewhere, or by a name that is ours."""
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    if name in ("localhost", listened_on.lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
