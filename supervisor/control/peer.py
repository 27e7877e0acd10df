"""Identification of the peer of a connection, once, when the connection is accepted.

The request arrives later, perhaps from another process that inherited the socket.  By then the pid of an ended process
may belong to another process.  So a pidfd holds the process while it is identified.
"""

from __future__ import annotations

import enum
import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

SO_PEERPIDFD = 77
"""Linux 6.5 (asm-generic/socket.h); Python has no name for it."""
_CREDENTIALS = "iII"


class Standing(enum.Enum):
    """The kind of a peer when its connection was accepted."""

    OPERATOR = enum.auto()
    JOB = enum.auto()
    GONE = enum.auto()  # the process has ended or cannot be inspected: it may have been a job
    UNKNOWN = enum.auto()  # the peer connected over TCP


class ConnectedSocket(Protocol):
    """A connected socket."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...
    def getpeername(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """The client of a connection; `uid` is its user at the time of `connect`.

    `identity` is equal for all connections of one process or of one address.
    """

    standing: Standing
    uid: int = -1
    identity: Hashable = None


def identify_address(connection: ConnectedSocket) -> Peer:
    """Return the peer of a TCP connection; never raise."""
    try:
        return Peer(Standing.UNKNOWN, identity=connection.getpeername()[0])
    except OSError:  # the peer has left already
        return Peer(Standing.UNKNOWN)


def identify(connection: ConnectedSocket, belongs_to_job: Callable[[int], bool]) -> Peer:
    """Return the peer of a unix socket connection (unix(7), SO_PEERCRED); never raise."""
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_CREDENTIALS))
        pid, uid, _ = struct.unpack(_CREDENTIALS, credentials)
    except OSError:  # the connection is gone
        return Peer(Standing.GONE)
    try:
        return Peer(_standing(connection, pid, uid, belongs_to_job), uid, pid)
    except OSError:  # no descriptor is left for the inspection
        return Peer(Standing.GONE, uid, pid)


def _standing(connection: ConnectedSocket, pid: int, uid: int, belongs_to_job: Callable[[int], bool]) -> Standing:
    try:
        pidfd = _pidfd(connection)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EINVAL):  # ESRCH, or no descriptor is left
            return Standing.GONE
        return _classify(pid, uid, belongs_to_job)  # Linux before 6.5 offers only the pid
    try:
        standing = _classify(pid, uid, belongs_to_job)
        # If the process is still alive, the pid belonged to it during the whole inspection.
        return Standing.GONE if _has_ended(pidfd) else standing
    finally:
        os.close(pidfd)


def _pidfd(connection: ConnectedSocket) -> int:
    (pidfd,) = struct.unpack("i", connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, struct.calcsize("i")))
    return int(pidfd)


def _classify(pid: int, uid: int, belongs_to_job: Callable[[int], bool]) -> Standing:
    # A process of another user, such as root, may be hidden from us.  It is not a job: jobs cannot change their user.
    return Standing.JOB if uid == os.geteuid() and belongs_to_job(pid) else Standing.OPERATOR


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)  # a pidfd is readable once its process has ended (pidfd_open(2))
    return bool(poll.poll(0))
