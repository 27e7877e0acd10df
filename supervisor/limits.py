"""What bounds the running of a handler.  Pure: said in its decorator, completed from the settings.

Lengths in seconds, sizes in bytes; None means that nothing was said.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import msgspec

Isolation = Literal["shared", "fresh"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """`memory` is that of the child's whole process tree, `max_memory_per_child` what it may keep after a job."""

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
        """These limits, and where they say nothing those of `defaults`."""
        return _completed(self, defaults)

    @property
    def jobs_per_child(self) -> float:
        """How many jobs a child may run before it is replaced."""
        return 1 if self.isolation == "fresh" else self.max_jobs_per_child or float("inf")


@lru_cache(maxsize=1024)  # asked for with each job, of as many handlers as there are
def _completed(limits: Limits, defaults: Limits) -> Limits:
    said = {name: value for name in limits.__struct_fields__ if (value := getattr(limits, name)) is not None}
    return msgspec.structs.replace(defaults, **said)
