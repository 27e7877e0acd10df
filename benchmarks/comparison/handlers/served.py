"""The jobs of the comparison as handlers of the supervisor."""

from __future__ import annotations

from _jobs import JOBS  # type: ignore[import-not-found]  # found where handlers are imported

from supervisor import handler

for name, function in JOBS.items():
    handler(name, cancel_grace="100ms" if name == "c-loop" else None)(function)
