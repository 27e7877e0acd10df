"""The open connections of one endpoint, and the choice of the connection to drop at the limit.  No I/O, no clock.

A slow client costs only itself: the caller with the most unfinished requests loses its oldest connection to the new
one.  Privileged callers have reserved connections and are never dropped for unprivileged ones.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

MAX_CONNECTIONS = 32
"""Concurrent connections, of privileged and unprivileged callers together."""
RESERVED_CONNECTIONS = 8
"""Connections beyond `MAX_CONNECTIONS`, for privileged callers only."""
MIN_ANSWER_TIME = 1.0
"""Seconds that every caller gets to read its response."""


class Phase(enum.Enum):
    """The progress of the one request of a connection."""

    READING = enum.auto()
    """The request head has not arrived completely."""
    ANSWERING = enum.auto()
    LASTING = enum.auto()
    """The response takes long by design: an event stream or a reload."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of a connection, identified by its address or its pid."""

    identity: Hashable
    is_privileged: bool = False


@dataclass(slots=True, eq=False)
class Connection:
    """One open connection."""

    caller: Caller
    accepted_at: float
    phase: Phase = Phase.READING

    def can_make_room(self, newcomer: Caller, now: float) -> bool:
        """True if this connection may be dropped for `newcomer`."""
        if self.caller.is_privileged and not newcomer.is_privileged:
            return False
        if self.phase is Phase.ANSWERING:
            return now - self.accepted_at >= MIN_ANSWER_TIME
        return self.phase is Phase.READING


class ConnectionLimit:
    """Owns the open connections, oldest first."""

    def __init__(self) -> None:
        self._open: dict[Connection, None] = {}

    def admit(self, caller: Caller, now: float) -> tuple[Connection | None, Connection | None]:
        """Return the new connection (None at the limit) and the connection to drop for it (None if not needed)."""
        limit = MAX_CONNECTIONS + (RESERVED_CONNECTIONS if caller.is_privileged else 0)
        dropped = None
        if len(self._open) >= limit:
            dropped = choose_dropped(self._open, caller, now)
            if dropped is None:
                return None, None
            self.remove(dropped)
        connection = Connection(caller, now)
        self._open[connection] = None
        return connection, dropped

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is closed or about to be closed.  Calling twice is harmless."""
        self._open.pop(connection, None)


def choose_dropped(connections: Iterable[Connection], newcomer: Caller, now: float) -> Connection | None:
    """Return the connection to drop for `newcomer`; unfinished requests are dropped before unread responses."""
    candidates = [each for each in connections if each.can_make_room(newcomer, now)]
    unfinished = [each for each in candidates if each.phase is Phase.READING] or candidates
    if not unfinished:
        return None
    counts = Counter(each.caller.identity for each in unfinished)
    most = max(counts.values())
    return next(each for each in unfinished if counts[each.caller.identity] == most)
