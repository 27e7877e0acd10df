"""Who may come in, and what for.  Pure, but for the names of users.

Over the unix socket: this user and root, for everything.  Over TCP: everybody, to look; whoever has the token, for
everything.  By neither way for a browser that a page from elsewhere has sent (see `origin`).
"""

from __future__ import annotations

import hmac
import os
import pwd
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from supervisor.control.origin import complaint
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

    def admit(self, peer: Peer, headers: Mapping[str, str]) -> None:
        _keep_out_strangers(headers, "localhost")
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
        _keep_out_strangers(headers, self.host)

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


def _keep_out_strangers(headers: Mapping[str, str], our_name: str) -> None:
    said = complaint(headers, our_name)
    if said is not None:
        raise NotAdmitted(421, said)
