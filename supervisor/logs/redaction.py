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
_PREFIXED = re.compile(r"mb[xc]_[^\s\"'<>,;&)\]}]+")
# A development server takes any key: masking "dev" wherever it occurs would only make the log unreadable.
_SHORTEST = 8
_LONGEST = 16_384
_DEEPEST = 6


class Mask:
    """Hides secrets and all text that looks like a key."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: set[str] = set()
        self._pattern = _PREFIXED
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Hide this one as well: a key may be renewed while we run."""
        if len(secret) >= _SHORTEST:
            self._secrets.add(secret)
            # The longest first: one secret may be a part of another.
            known = map(re.escape, sorted(self._secrets, key=len, reverse=True))
            self._pattern = re.compile("|".join([*known, _PREFIXED.pattern]))

    def __call__(self, text: str) -> str:
        return self._pattern.sub(MASK, text)


def redact(mask: Mask) -> Processor:
    """Return a processor that masks text anywhere in an event."""

    def processor(_logger: Any, _method: str, event: EventDict) -> EventDict:
        return {_masked(mask, _text(key)): _plain(mask, value, _DEEPEST) for key, value in event.items()}

    return processor


def _plain(mask: Mask, value: object, depth: int) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping) and depth:
        return {_masked(mask, _text(key)): _plain(mask, each, depth - 1) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth:
        return [_plain(mask, each, depth - 1) for each in value]
    return _masked(mask, _text(value))


def _masked(mask: Mask, text: str) -> str:
    masked = mask(text)
    return masked if len(masked) <= _LONGEST else f"{masked[:_LONGEST]}… ({len(masked)} characters)"


def _text(value: object) -> str:
    if type(value) is str:
        return value
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - a foreign object's __str__ may raise anything, logging may not
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
