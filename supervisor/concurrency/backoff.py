"""Exponential backoff with jitter.  Pure: the random source is an argument."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Delays that double from `first` up to `longest` seconds, each shortened at random by up to a half.

    The jitter prevents many workers from calling a recovering server at the same instant.
    """

    def __init__(self, first: float, longest: float, *, jitter: Callable[[], float] = random.random) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self.failures = 0

    def next(self) -> float:
        """Count a failure and return the seconds to wait."""
        # Bound the exponent: after a day of failures the power would overflow a float.
        full = min(self._longest, self._first * 2.0 ** min(self.failures, 60))
        self.failures += 1
        return full * (1 - self._jitter() / 2)

    def reset(self) -> None:
        """Start again from the shortest delay after a success."""
        self.failures = 0
