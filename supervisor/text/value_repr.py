"""How a value of a user is written in a sentence: short, printable, and whatever its `__repr__` does.  Pure."""

from __future__ import annotations

MAX_REPR = 100
"""Characters of a value's `repr` that a sentence has room for."""


def type_name(value: object) -> str:
    """The name of its type, with the module unless it is built in: NumPy's `bool` is `numpy.bool`."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def value_repr(value: object) -> str:
    """Return `repr(value)`, cut after `MAX_REPR` characters; the name of its type where `repr` fails."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - users' classes may have a broken __repr__
        return f"<{type_name(value)}>"
    short = text if len(text) <= MAX_REPR else f"{text[:MAX_REPR]}…"
    return short.encode("utf-8", "backslashreplace").decode()
