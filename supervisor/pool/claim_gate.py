"""Whether jobs may be asked for, and if not, why.  Pure: several causes, each shut and lifted on its own."""

from __future__ import annotations

import enum
from collections.abc import Callable


class BlockReason(enum.Enum):
    """A reason to claim nothing, the most important first; the value is its label in metrics and in the status."""

    PAUSED = "paused"  # an operator wants it so, until an operator wants it otherwise
    STOPPED_BY_SIGNAL = "halted"  # SIGTSTP, until SIGCONT
    MEMORY = "memory"  # the machine is short of it
    CREDENTIAL = "credential"  # the server refuses the key
    SERVER = "server"  # it has asked for it (429)


class ClaimGate:
    """Open as long as no bar is there.  `opened` is called when the last is lifted, or the last but a refused key."""

    def __init__(self, opened: Callable[[], None]) -> None:
        self._opened = opened
        self._reasons: dict[BlockReason, str] = {}

    def __repr__(self) -> str:
        return f"<Gate {self.reason or 'open'}>"

    @property
    def is_open(self) -> bool:
        return not self._reasons

    @property
    def allows_trial(self) -> bool:
        """Whether nothing but a refused key blocks claims: a single claim may ask again."""
        return self._reasons.keys() == {BlockReason.CREDENTIAL}

    @property
    def reason(self) -> str | None:
        """Why it is shut, in words; None when it is open."""
        return next((self._reasons[bar] for bar in BlockReason if bar in self._reasons), None)

    @property
    def block_reasons(self) -> tuple[BlockReason, ...]:
        """All that is in the way."""
        return tuple(bar for bar in BlockReason if bar in self._reasons)

    def is_blocked_by(self, bar: BlockReason) -> bool:
        return bar in self._reasons

    def block(self, bar: BlockReason, reason: str) -> None:
        """Let nobody through for this cause; shutting again changes the reason."""
        self._reasons[bar] = reason

    def unblock(self, bar: BlockReason) -> None:
        """This cause is over; others may still be there."""
        if self._reasons.pop(bar, None) is not None and (self.is_open or self.allows_trial):
            self._opened()
