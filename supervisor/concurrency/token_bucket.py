"""How much of something may pass: a burst at once, and a rate for ever.  Pure: callers say what time it is."""

from __future__ import annotations


class TokenBucket:
    """Starts full."""

    def __init__(self, *, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._filled_at = now

    def take(self, amount: float, now: float) -> bool:
        """Take `amount` when there is as much; otherwise nothing."""
        self._fill(now)
        if self._tokens < amount:
            return False
        self._tokens -= amount
        return True

    def overdraw(self, amount: float, now: float) -> float:
        """Take `amount` in any case; return the seconds after which the debt is paid, 0.0 when there is none."""
        self._fill(now)
        self._tokens -= amount
        return max(0.0, -self._tokens / self._rate)

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
