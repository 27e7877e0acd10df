"""The smallest job there is."""

from __future__ import annotations

from supervisor import handler


@handler("trivial")
def trivial() -> None:
    """Nothing: what a job costs without its work."""
