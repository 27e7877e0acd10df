"""Keeps API keys out of log lines.  Pure: no I/O, no clock.

`redact` also makes every value plain (text, numbers, lists, dictionaries), so that what follows can render it without
asking foreign objects again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from structlog.typing import EventDict, Processor

MASK = "***"

# Keys that never were ours, in an error text or in a job's output, are recognised by their prefix.
_PREFIXED = re.compile(r"mbx_[^\s\"'<>,;&)\]}]+")
# A development server takes any key: masking "dev" wherever it occurs would only make the log unreadable.
_SHORTEST = 8
_LONGEST = 16_384
_DEEPEST = 6


def redact(secrets: Iterable[str]) -> Processor:
    """Return a processor that masks each of `secrets`, and whatever looks like a key, anywhere in an event."""
    known = [re.escape(secret) for secret in secrets if len(secret) >= _SHORTEST]
    # The longest first: one secret may be a part of another.
    pattern = re.compile("|".join([*sorted(known, key=len, reverse=True), _PREFIXED.pattern]))

    def processor(_logger: Any, _method: str, event: EventDict) -> EventDict:
        return {_mask(pattern, _text(key)): _plain(pattern, value, _DEEPEST) for key, value in event.items()}

    return processor


def _plain(pattern: re.Pattern[str], value: object, depth: int) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping) and depth:
        return {_mask(pattern, _text(key)): _plain(pattern, each, depth - 1) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth:
        return [_plain(pattern, each, depth - 1) for each in value]
    return _mask(pattern, _text(value))


def _mask(pattern: re.Pattern[str], text: str) -> str:
    masked = pattern.sub(MASK, text)
    return masked if len(masked) <= _LONGEST else f"{masked[:_LONGEST]}… ({len(masked)} characters)"


def _text(value: object) -> str:
    if type(value) is str:
        return value
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - a foreign object's __str__ may raise anything, logging may not
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
