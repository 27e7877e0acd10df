"""How long to wait after the n-th failure in a row.  Pure: the jitter comes in as a function."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Waits that double from `first` up to `longest` seconds, each shortened by up to a half at random.

    The jitter keeps many workers from coming back to a recovering server at the same instant.
    """

    def __init__(self, first: float, longest: float, *, jitter: Callable[[], float] = random.random) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self.failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        # The exponent is bounded: two to the power of a day's failures is no float.
        full = min(self._longest, self._first * 2.0 ** min(self.failures, 60))
        self.failures += 1
        return full * (1 - self._jitter() / 2)

    def reset(self) -> None:
        """It worked: the next failure is the first one again."""
        self.failures = 0
