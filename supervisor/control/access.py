"""Who may come in, and what for.  Pure, but for the names of users.

Over the unix socket: this user and root, for everything; this user's jobs, to look.  Over TCP: everybody, to look;
whoever has the token, for everything.  By neither way for a browser that a page from elsewhere has sent (see `origin`).
"""

from __future__ import annotations

import hmac
import os
import pwd
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from supervisor.control.connection_limit import Caller
from supervisor.control.origin import host_error
from supervisor.control.peer import ConnectedSocket, Peer, Standing, identify, identify_address
from supervisor.page.document import Access


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
