"""A handler whose import leaves 100 MiB of small objects."""

from __future__ import annotations

from _table import TABLE  # type: ignore[import-not-found]  # found where handlers are imported

from supervisor import handler


@handler("look-up")
def look_up(number: int) -> str:
    return str(TABLE[number][0])
