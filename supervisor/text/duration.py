"""Lengths of time as people write them: `500ms`, `2s`, `10m`, `1h30m`.  Pure: no I/O, no clock.

Shared by the command line, the settings and `@handler`; everywhere else a length is a float of seconds.
"""

from __future__ import annotations

import math
import numbers
import re
from decimal import Decimal

from supervisor.text.value_repr import value_repr

_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
# Each unit at most once and from large to small: "30m1h" or "1m1m" is more likely a slip than an intention.
# A space is taken as it is in sizes, but one only: with any number of them a long text would take for ever to refuse.
_WHOLE = re.compile("".join(rf"(?: ?(?P<{unit}>{_NUMBER.pattern}) ?{unit})?" for unit in _SECONDS))


def parse_duration(text: str | float) -> float:
    """Return the seconds that `text` stands for.

    Takes numbers of seconds (`90`, `1.5`, `"90"`) and numbers with units, from large to small (`"1h30m"`, `"2.5 s"`).
    Raises `ValueError`, one sentence, for anything else: negative, not finite, empty, an unknown unit.
    """
    seconds = _of_text(text.strip()) if isinstance(text, str) else _of_number(text)
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        shown = value_repr(text)
        raise ValueError(f"{shown} is not a duration: write seconds, or for example '500ms', '2s', '10m' or '1h30m'")
    return seconds


def format_duration(seconds: float) -> str:
    """Return `seconds`, rounded to a millisecond, as `parse_duration` reads them: `1h30m`, `2.5s`, `250ms`, `0s`."""
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{seconds!r} is not a length of time in seconds")
    milliseconds = round(seconds * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{count}{unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "m")) if count]
    if milliseconds or not parts:
        parts.append(f"{milliseconds / 1000:g}s")
    return "".join(parts)


def _of_text(text: str) -> float | None:
    if _NUMBER.fullmatch(text):
        return float(text)
    match = _WHOLE.fullmatch(text)
    if match is None or not text:
        return None
    return math.fsum(float(count) * _SECONDS[unit] for unit, count in match.groupdict().items() if count)


def _of_number(number: float) -> float | None:
    # A bool is an int to Python, but `timeout=True` is a slip.
    # A number of NumPy is a `Real`; a `Decimal` is not, though Python takes it for one everywhere else.
    if isinstance(number, bool) or not isinstance(number, numbers.Real | Decimal):
        return None
    try:
        return float(number)
    except OverflowError:
        return None
