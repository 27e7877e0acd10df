"""Numbers, bars and escaped HTML elements of the page.  Numbers are short and of steady width.  Pure."""

from __future__ import annotations

import html
import math
import sys
from datetime import UTC, datetime
from typing import Literal

from supervisor.text.printable import escaped

Mood = Literal["", "good", "warn", "bad"]

_UNITS = (("d", 86400, sys.maxsize), ("h", 3600, 24), ("min", 60, 60), ("s", 1, 60))


def clock(seconds: float) -> str:
    """Return a running time: `0:07`, `12:34`, `1:02:03`, `2 d 1:02:03`."""
    days, rest = divmod(max(0, int(seconds)), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    return f"{days} d {text}" if days else text


def length(seconds: float) -> str:
    """Return a duration in its one or two largest units: `0.2 s`, `42 s`, `3 min`, `1 h 5 min`, `3 d 4 h`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    counts = [(int(seconds) // size % below, unit) for unit, size, below in _UNITS]
    first = next(place for place, (count, _) in enumerate(counts) if count)
    return " ".join(f"{count} {unit}" for count, unit in counts[first : first + 2] if count)


def moment(seconds: float) -> Markup:
    """Return a time of day, with the date in its tooltip."""
    at = datetime.fromtimestamp(seconds, UTC)
    whole = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return element("time", f"{at:%H:%M:%S}", datetime=f"{at:%Y-%m-%dT%H:%M:%SZ}", title=whole)


def counted(count: int, noun: str) -> str:
    """`1 job`, `2,000 jobs`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def share_of(part: float, whole: float | None) -> float | None:
    """Return `part` / `whole`, limited to 0..1; None if there is no usable whole."""
    if whole is None or not math.isfinite(whole) or whole <= 0 or not math.isfinite(part):
        return None
    return min(1.0, max(0.0, part / whole))


def mood_of(share: float | None) -> Mood:
    """Return the color class for a share of a limit."""
    if share is None or share < 0.8:
        return ""
    return "warn" if share < 0.95 else "bad"


def bar(share: float | None, mood: Mood = "") -> Markup:
    """Return a bar for a share, hidden from screen readers, which read the figure beside it.  Empty without a share.

    Drawn with SVG attributes, because the page's policy forbids inline styles.
    """
    if share is None:
        return Markup()
    done = element("rect", width=f"{share:.1%}", height="100%")
    return element("svg", done, class_=f"bar {mood}".strip(), aria_hidden="true")


class Markup(str):
    """Escaped HTML.  Only this module creates it; every other `str` is text and gets escaped."""

    __slots__ = ()


def element(name: str, /, *content: str, **attributes: str | None) -> Markup:
    """`<name …>content</name>`; an underscore in an attribute's name stands for a hyphen, None leaves it out."""
    said = "".join(
        f' {attribute.rstrip("_").replace("_", "-")}="{_safe(value)}"'
        for attribute, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{said}>{joined(*content)}</{name}>")


def joined(*content: str) -> Markup:
    """Concatenate pieces; escape those that are text."""
    return Markup("".join(piece if isinstance(piece, Markup) else _safe(piece) for piece in content))


def lines(text: str) -> Markup:
    """Return `text` for a `<pre>`: keep line breaks, escape other control characters."""
    return Markup("\n".join(map(_safe, text.splitlines())))


def _safe(text: str) -> str:
    return html.escape(escaped(text))
