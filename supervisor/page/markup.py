"""HTML that is escaped where it is made, so that text from jobs cannot become markup.  Pure."""

from __future__ import annotations

import html

from supervisor.text.printable import escaped


class Markup(str):
    """HTML as it is sent.  Only this module turns text into it; any other `str` is text, and is escaped."""

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
    """One piece after the other."""
    return Markup("".join(piece if isinstance(piece, Markup) else _safe(piece) for piece in content))


def lines(text: str) -> Markup:
    """`text` for a `<pre>`: its lines stay lines, other control characters are written out."""
    return Markup("\n".join(map(_safe, text.splitlines())))


def _safe(text: str) -> str:
    return html.escape(escaped(text))
