"""Who has connected to the control socket: judged once, when the connection is accepted, and kept with it.

A request comes later, perhaps by another process that was handed the socket.  The pid of a process that has ended may
by then be that of another one; so the process is held by a pidfd while it is judged.
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
    """What a process was when its connection was accepted."""

    OPERATOR = enum.auto()
    JOB = enum.auto()
    GONE = enum.auto()  # it has ended, or cannot be looked at: it may have been a job
    UNKNOWN = enum.auto()  # it came by TCP


class ConnectedSocket(Protocol):
    """A connected socket."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...
    def getpeername(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of a connection; `uid` is that of the time of its `connect`.

    `identity` is equal for connections of one process, or of one address.
    """

    standing: Standing
    uid: int = -1
    identity: Hashable = None


def identify_address(connection: ConnectedSocket) -> Peer:
    """Return who has connected by TCP; never raise."""
    try:
        return Peer(Standing.UNKNOWN, identity=connection.getpeername()[0])
    except OSError:  # the peer has left already
        return Peer(Standing.UNKNOWN)


def identify(connection: ConnectedSocket, is_of_a_job: Callable[[int], bool]) -> Peer:
    """Return who has connected by a unix socket (unix(7), SO_PEERCRED); never raise."""
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_CREDENTIALS))
        pid, uid, _ = struct.unpack(_CREDENTIALS, credentials)
    except OSError:  # the connection is gone
        return Peer(Standing.GONE)
    try:
        return Peer(_standing(connection, pid, uid, is_of_a_job), uid, pid)
    except OSError:  # no descriptor is left to look with
        return Peer(Standing.GONE, uid, pid)


def _standing(connection: ConnectedSocket, pid: int, uid: int, is_of_a_job: Callable[[int], bool]) -> Standing:
    try:
        pidfd = _pidfd(connection)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EINVAL):  # ESRCH, or no descriptor is left
            return Standing.GONE
        return _judge(pid, uid, is_of_a_job)  # Linux before 6.5: a pid is all there is
    try:
        standing = _judge(pid, uid, is_of_a_job)
        # It lives still, so all that was seen of this pid was seen of the process that connected.
        return Standing.GONE if _has_ended(pidfd) else standing
    finally:
        os.close(pidfd)


def _pidfd(connection: ConnectedSocket) -> int:
    (pidfd,) = struct.unpack("i", connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, struct.calcsize("i")))
    return int(pidfd)


def _judge(pid: int, uid: int, is_of_a_job: Callable[[int], bool]) -> Standing:
    # Another user's process, root's, may be hidden from us, and is no job's: none of them can change its user.
    return Standing.JOB if uid == os.geteuid() and is_of_a_job(pid) else Standing.OPERATOR


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)  # a pidfd is readable once its process has ended (pidfd_open(2))
    return bool(poll.poll(0))
