"""Whether there is memory for one more job.  Pure: it is shown what there is, and says why nothing is to be claimed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from supervisor.settings.value_types import Share
from supervisor.text.size import format_size

RECOVERY_FACTOR = 1.25
"""Times the least that must be available again: jobs that end and begin shall not open and shut by turns."""
MAX_STALL_SHARE = 0.2
"""Part of the time that everything may stand still for want of memory; half of that ends the shortage again."""


@dataclass(frozen=True, slots=True)
class Headroom:
    """Bytes of memory that are available somewhere, of how many; and for what part of the last ten seconds all that
    runs there stood still for want of it."""

    where: str
    available: int
    total: int
    stalled: float = 0.0


class MemoryGuard:
    """Remembers whether memory is short, for what ends a shortage is more than what begins it."""

    def __init__(self) -> None:
        self._is_short = False

    def judge(self, rooms: Sequence[Headroom], least: Share) -> str | None:
        """Why nothing is to be claimed; None when `least` is available everywhere, or is nothing."""
        looked_at = () if least == Share() else rooms
        reasons = [reason for room in looked_at if (reason := self._lack(room, least)) is not None]
        self._is_short = bool(reasons)
        return reasons[0] if reasons else None

    def _lack(self, room: Headroom, least: Share) -> str | None:
        wanted = least.of(room.total) * (RECOVERY_FACTOR if self._is_short else 1.0)
        if room.available < wanted:
            left = format_size(room.available)
            return f"short of memory: {room.where} has {left} left, wanted are {format_size(wanted)}"
        if room.stalled >= (MAX_STALL_SHARE / 2 if self._is_short else MAX_STALL_SHARE):
            return f"short of memory: {room.where} stood still for {room.stalled:.0%} of the last 10 s"
        return None
