"""Gate for claims: open unless a reason blocks it.  Pure; each reason is blocked and unblocked on its own."""

from __future__ import annotations

import enum
from collections.abc import Callable


class BlockReason(enum.Enum):
    """A reason to claim nothing, the most important first; the value is its label in metrics and in the status."""

    PAUSED = "paused"  # by an operator, until an operator resumes
    STOPPED_BY_SIGNAL = "halted"  # SIGTSTP, until SIGCONT
    MEMORY = "memory"  # the machine is short of memory
    CREDENTIAL = "credential"  # the server refuses the key
    SERVER = "server"  # the server limits the rate of claims (429)


class ClaimGate:
    """Open while nothing blocks it.

    `opened` is called when no reason is left, and also when only the refused key is left (`allows_trial`).
    """

    def __init__(self, opened: Callable[[], None]) -> None:
        self._opened = opened
        self._reasons: dict[BlockReason, str] = {}

    def __repr__(self) -> str:
        return f"<ClaimGate {self.reason or 'open'}>"

    @property
    def is_open(self) -> bool:
        return not self._reasons

    @property
    def allows_trial(self) -> bool:
        """True if only the refused key blocks claims: one trial claim may find out whether it is accepted again."""
        return self._reasons.keys() == {BlockReason.CREDENTIAL}

    @property
    def reason(self) -> str | None:
        """The most important reason as a sentence; None while the gate is open."""
        return next((self._reasons[each] for each in BlockReason if each in self._reasons), None)

    @property
    def block_reasons(self) -> tuple[BlockReason, ...]:
        """All reasons that block claims now."""
        return tuple(each for each in BlockReason if each in self._reasons)

    def is_blocked_by(self, reason: BlockReason) -> bool:
        return reason in self._reasons

    def block(self, reason: BlockReason, text: str) -> None:
        """Block claims for `reason`; a second call replaces `text`, its sentence for operators."""
        self._reasons[reason] = text

    def unblock(self, reason: BlockReason) -> None:
        """Remove `reason`; other reasons may still block claims."""
        if self._reasons.pop(reason, None) is not None and (self.is_open or self.allows_trial):
            self._opened()
