"""Levels of log records."""

from __future__ import annotations


def known_level(number: int) -> int:
    """Return the highest level of structlog that is not above `number`: `logging` allows any number, such as 25."""
    return max(10, min(50, number // 10 * 10))
