"""What a job's newest `progress` event says, as far as a page can show it.  Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from supervisor.page.figures import share_of

# No page shows more, and an object of this size is decoded in no time.
_LONGEST = 16 * 1024
_KNOWN = {"done", "total", "percent", "message"}


@dataclass(frozen=True, slots=True)
class Progress:
    """`share` is the part that is done, from 0 to 1, and `count` how much that is, where the event says so."""

    share: float | None
    count: str
    text: str


def read_progress(payload: msgspec.Raw) -> Progress:
    """Take `done` of `total` (what `Context.progress` sends), `percent` and `message`; the rest is shown as it is."""
    said = _members(payload)
    if said is None:
        return Progress(None, "", bytes(payload)[:_LONGEST].decode("utf-8", "replace"))
    done, total, percent = (_number(said.get(name)) for name in ("done", "total", "percent"))
    share = share_of(percent, 100) if percent is not None else None if done is None else share_of(done, total)
    return Progress(share, _count(done, total), " · ".join(_texts(said)))


def _count(done: float | None, total: float | None) -> str:
    if done is None:
        return ""
    return f"{done:,.12g}" if total is None else f"{done:,.12g} of {total:,.12g}"


def _texts(said: dict[str, msgspec.Raw]) -> Iterator[str]:
    if "message" in said:
        yield _text(said["message"])
    for name, value in said.items():
        if name not in _KNOWN:
            yield f"{name} {_text(value)}"


def _members(payload: msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    try:
        return msgspec.json.decode(payload, type=dict[str, msgspec.Raw]) if len(bytes(payload)) <= _LONGEST else None
    except (msgspec.DecodeError, RecursionError):
        return None


def _number(value: msgspec.Raw | None) -> float | None:
    try:
        number = msgspec.json.decode(value, type=float) if value is not None else math.nan
    except msgspec.DecodeError:
        return None
    return number if math.isfinite(number) else None


def _text(value: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(value, type=str)
    except msgspec.DecodeError:
        return bytes(value).decode("utf-8", "replace")
