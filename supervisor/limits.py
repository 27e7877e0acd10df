"""Limits of a handler, from its decorator and from the settings.  Pure.

Durations are in seconds, sizes in bytes; None means not set.  Tested by tests/handler_api/test_registry.py.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import msgspec

Isolation = Literal["shared", "fresh"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """`memory` bounds the child's process tree during a job, `max_memory_per_child` the child's memory after a job."""

    timeout: float | None = None
    cancel_grace: float | None = None
    idempotent: bool = False
    memory: int | None = None
    max_concurrent: int | None = None
    max_jobs_per_child: int | None = None
    max_memory_per_child: int | None = None
    isolation: Isolation = "shared"
    nice: int | None = None
    threads: int | None = None

    def or_else(self, defaults: Limits) -> Limits:
        """Return these limits, with `defaults` for the limits that are not set."""
        return _completed(self, defaults)

    @property
    def jobs_per_child(self) -> float:
        """Maximum number of jobs of one child; infinite if not set."""
        return 1 if self.isolation == "fresh" else self.max_jobs_per_child or float("inf")


@lru_cache(maxsize=1024)  # called for each job; the distinct arguments are as few as the handlers
def _completed(limits: Limits, defaults: Limits) -> Limits:
    given = {name: value for name in limits.__struct_fields__ if (value := getattr(limits, name)) is not None}
    return msgspec.structs.replace(defaults, **given)
