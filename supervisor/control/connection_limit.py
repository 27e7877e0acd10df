"""Which connections are open at one door, and which one makes room when there are too many.  No I/O and no clock.

A slow client costs itself: the peer with the most unfinished requests loses its oldest one to the newcomer.  Peers with
privilege have a few places that others cannot take, and are never dropped for others.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

MAX_CONNECTIONS = 32
"""Connections at once, of peers with and without privilege."""
RESERVED_CONNECTIONS = 8
"""Connections beyond `MAX_CONNECTIONS`, for peers with privilege only."""
MIN_ANSWER_TIME = 1.0
"""Seconds that a peer always has to read its answer."""


class Phase(enum.Enum):
    """How far the one request of a connection has come."""

    READING = enum.auto()
    """The head of the request has not arrived."""
    ANSWERING = enum.auto()
    LASTING = enum.auto()
    """The answer is meant to last: a stream of events, a reload."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The other end of a connection, as far as the kernel knows it: an address, or a pid and its user."""

    identity: Hashable
    is_privileged: bool = False


@dataclass(slots=True, eq=False)
class Connection:
    """One open connection."""

    caller: Caller
    accepted_at: float
    phase: Phase = Phase.READING

    def can_make_room(self, newcomer: Caller, now: float) -> bool:
        """True if `newcomer` may take this place."""
        if self.caller.is_privileged and not newcomer.is_privileged:
            return False
        if self.phase is Phase.ANSWERING:
            return now - self.accepted_at >= MIN_ANSWER_TIME
        return self.phase is Phase.READING


class ConnectionLimit:
    """Owns the connections that are open, the oldest first."""

    def __init__(self) -> None:
        self._open: dict[Connection, None] = {}

    def admit(self, caller: Caller, now: float) -> tuple[Connection | None, Connection | None]:
        """Return the new connection, or None if there is no room, and the connection to drop for it, if any."""
        most = MAX_CONNECTIONS + (RESERVED_CONNECTIONS if caller.is_privileged else 0)
        dropped = None
        if len(self._open) >= most:
            dropped = choose_dropped(self._open, caller, now)
            if dropped is None:
                return None, None
            self.remove(dropped)
        connection = Connection(caller, now)
        self._open[connection] = None
        return connection, dropped

    def remove(self, connection: Connection) -> None:
        """The connection is closed, or will be; it may have been removed before."""
        self._open.pop(connection, None)


def choose_dropped(connections: Iterable[Connection], newcomer: Caller, now: float) -> Connection | None:
    """Return the connection that makes room for `newcomer`; unfinished requests go before unread answers."""
    candidates = [each for each in connections if each.can_make_room(newcomer, now)]
    unfinished = [each for each in candidates if each.phase is Phase.READING] or candidates
    if not unfinished:
        return None
    counts = Counter(each.caller.identity for each in unfinished)
    most = max(counts.values())
    return next(each for each in unfinished if counts[each.caller.identity] == most)
