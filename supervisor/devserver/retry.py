"""Retry policies of a step: which failures are retried, and after which delay.  Pure; randomness is an argument.

Tested by tests/devserver/test_store.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Literal

import msgspec

FATAL = "fatal_error"
MAX_DELAY = 30 * 86400.0
"""Upper bound in seconds of any delay between attempts."""

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)"

Duration = Annotated[str, msgspec.Meta(pattern=rf"\A(0|({_PART})+)\Z")]


class RetryPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One retry block.  Without `error_equals` it is a catch-all, which never retries `fatal_error`."""

    error_equals: list[str] = []
    max_retries: Annotated[int, msgspec.Meta(ge=0)] = 3
    base_delay: Duration = "1s"
    max_delay: Duration | None = None
    backoff_rate: Annotated[float, msgspec.Meta(ge=0, le=100)] = 2.0
    jitter_strategy: Literal["NONE", "FULL"] = "NONE"

    def covers(self, error_type: str | None) -> bool:
        return error_type in self.error_equals if self.error_equals else error_type != FATAL

    def delay(self, attempt: int, jitter: Callable[[], float]) -> float:
        """Return the seconds between `attempt` (from 1) and the next; `jitter` returns numbers from 0 to 1."""
        growth = self.backoff_rate ** min(attempt - 1, 64)  # a float overflows at 1e308
        longest = MAX_DELAY if self.max_delay is None else seconds(self.max_delay)
        delay = min(seconds(self.base_delay) * growth, longest)
        return delay * jitter() if self.jitter_strategy == "FULL" else delay


def retry_delay(
    policies: Iterable[RetryPolicy], error_type: str | None, attempt: int, jitter: Callable[[], float]
) -> float | None:
    """Return the seconds until the next attempt; None for a final failure.  The first matching policy decides."""
    policy = next((policy for policy in policies if policy.covers(error_type)), None)
    if policy is None or attempt > policy.max_retries:
        return None
    return policy.delay(attempt, jitter)


def seconds(duration: Duration) -> float:
    """Convert a duration such as `1s`, `500ms` or `1h30m` to seconds."""
    return sum(float(amount) * _UNITS[unit] for amount, unit in re.findall(_PART, duration))
