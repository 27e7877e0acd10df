"""Sizes as people write them: `512MiB`, `2GiB`, `1.5G`.  Pure.

Everywhere else a size is a whole number of bytes.
"""

from __future__ import annotations

import re

from supervisor.text.value_repr import value_repr

MAX_SIZE = 2**62
"""Bytes: more than any machine has, and what fits into a whole number of the kernel."""

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_WHOLE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """Return the bytes that `text` stands for; raise `ValueError`, one sentence, when it is no size above zero.

    `K`, `M`, `G` and `T`, also as `KiB` or `KB`, are powers of 1024.
    """
    size = _bytes_of(text)
    if size is None or not 0 < size <= MAX_SIZE:
        raise ValueError(f"{value_repr(text)} is not a size: write bytes, or for example '512MiB' or '2GiB'")
    return size


def _bytes_of(text: str | int) -> int | None:
    """The bytes, which may be none or too many; None for what is no size at all."""
    try:
        match = _WHOLE.fullmatch(str(text).strip()) if not isinstance(text, bool) else None
        return round(float(match[1]) * _UNITS[match[2].lower()]) if match else None
    except (ValueError, OverflowError):  # more digits than Python turns into text, or than a float can hold
        return None


def format_size(size: float) -> str:
    """`size` bytes with three digits at least, in the largest unit that leaves that many: `512 MiB`, `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1024
    return f"{size:.3g} TiB"
