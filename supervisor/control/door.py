"""Who may come in, and what for.  Pure, but for the names of users.

Over the unix socket: this user and root, for everything; this user's jobs, to look.  Over TCP: everybody, to look;
whoever has the token, for everything.  By neither way for a browser that a page from elsewhere has sent (see `origin`).
"""

from __future__ import annotations

import hmac
import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from supervisor.control.origin import complaint
from supervisor.control.peer import ANYBODY, Connection, Peer, Standing, identify
from supervisor.page.document import Access


class NotAdmitted(Exception):
    """The request is refused with this status; the text is one sentence.  Caught by the site."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Door(Protocol):
    """One way in."""

    @property
    def access(self) -> Access: ...

    def identify(self, connection: Connection) -> Peer:
        """Return who has connected; called when the connection is accepted."""

    def admit(self, peer: Peer, headers: Mapping[str, str]) -> None:
        """Let a visitor look; raise `NotAdmitted`."""

    def admit_operator(self, peer: Peer, headers: Mapping[str, str]) -> str:
        """Let a visitor change things; return who it is, for the log and for reports.  Raise `NotAdmitted`."""


class UnixDoor:
    """For processes of this host, whose user and pid the kernel tells.

    Jobs run as our own user: `is_of_a_job` tells their processes, which may look and no more.
    """

    access = Access.STEER

    def __init__(self, is_of_a_job: Callable[[int], bool]) -> None:
        self._is_of_a_job = is_of_a_job

    def identify(self, connection: Connection) -> Peer:
        return identify(connection, self._is_of_a_job)

    def admit(self, peer: Peer, headers: Mapping[str, str]) -> None:
        _keep_out_strangers(headers, "localhost")
        if peer.uid not in (0, os.geteuid()):
            raise NotAdmitted(403, f"{_named(peer.uid)} is neither the user of this supervisor nor root")

    def admit_operator(self, peer: Peer, headers: Mapping[str, str]) -> str:  # noqa: ARG002 - see Door
        if peer.standing is Standing.GONE:
            raise NotAdmitted(403, "the process that connected has ended, and could have been a job's")
        if peer.standing is Standing.JOB:
            raise NotAdmitted(403, "a job cannot steer the supervisor that runs it")
        return f"{_named(peer.uid)} by the control socket"


@dataclass(frozen=True, slots=True)
class TcpDoor:
    """For everybody who reaches the address; `token` is None when nobody is to change anything."""

    host: str
    token: str | None

    @property
    def access(self) -> Access:
        return Access.LOOK if self.token is None else Access.UNLOCK

    def identify(self, connection: Connection) -> Peer:  # noqa: ARG002 - see Door
        return ANYBODY

    def admit(self, peer: Peer, headers: Mapping[str, str]) -> None:  # noqa: ARG002 - see Door
        _keep_out_strangers(headers, self.host)

    def admit_operator(self, peer: Peer, headers: Mapping[str, str]) -> str:  # noqa: ARG002 - see Door
        if self.token is None:
            raise NotAdmitted(403, "commands are taken over the control socket, or here with --listen-token-file")
        expected = f"Bearer {self.token}".encode()
        if not hmac.compare_digest(headers.get("Authorization", "").encode("utf-8", "surrogateescape"), expected):
            raise NotAdmitted(401, "the token is missing or wrong")
        return f"a holder of the token by {self.host}"


def _named(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _keep_out_strangers(headers: Mapping[str, str], our_name: str) -> None:
    said = complaint(headers, our_name)
    if said is not None:
        raise NotAdmitted(421, said)
