"""A handler whose import leaves 100 MiB of small objects: whoever touches their counts copies their pages."""

from __future__ import annotations

from supervisor import handler

TABLE = {number: [str(number), (number, float(number))] for number in range(330_000)}


@handler("look-up")
def look_up(number: int) -> str:
    return str(TABLE[number][0])
