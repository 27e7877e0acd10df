"""What the type of a value is called in a sentence.  Pure."""

from __future__ import annotations


def type_name(value: object) -> str:
    """The name of its type, with the module unless it is built in: NumPy's `bool` is `numpy.bool`."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
