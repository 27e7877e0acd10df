"""Rate limit with a burst.  Pure: the time is an argument."""

from __future__ import annotations


class TokenBucket:
    """A token bucket that starts full."""

    def __init__(self, *, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._filled_at = now

    def take(self, amount: float, now: float) -> bool:
        """Take `amount` tokens and return True, or take nothing and return False if there are fewer."""
        self._fill(now)
        if self._tokens < amount:
            return False
        self._tokens -= amount
        return True

    def overdraw(self, amount: float, now: float) -> float:
        """Take `amount` tokens in any case; return the seconds until the debt is paid, 0.0 without a debt."""
        self._fill(now)
        self._tokens -= amount
        return max(0.0, -self._tokens / self._rate)

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
