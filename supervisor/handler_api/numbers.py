"""What counts as a number: whatever is one to Python, as NumPy's and PyTorch's scalars are.  Pure; imports neither."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any, SupportsFloat, SupportsIndex

_KINDS = "biuf"
"""NumPy's letters for truth values, integers and floats; those of dates are others."""
_PLAIN = (bool, int, float)


def plain_number(value: object) -> bool | int | float | None:
    """Return Python's own number for a single number of a library; None for anything else, an array included."""
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if getattr(value, "ndim", None) == 0:  # a scalar of NumPy that is no `numbers.Number`, or an array of one number
        return _item(value)
    return None


def _item(value: Any) -> bool | int | float | None:
    if getattr(getattr(value, "dtype", None), "kind", "f") not in _KINDS:
        return None
    item = value.item() if callable(getattr(value, "item", None)) else None
    return item if isinstance(item, _PLAIN) else None


def finite_number(what: str, value: SupportsIndex | SupportsFloat | None) -> int | float | None:
    """Return a figure of progress as JSON can hold it; None for one that is not known: None, NaN, infinity.

    Takes what `operator.index` or `float` take, but no text.  Raises `TypeError`, naming `what`, for anything else.
    """
    if value is None:
        return None
    try:
        number = _number(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} is no number but of type {type(value).__name__}: {error}") from None
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _number(value: Any) -> int | float:
    if isinstance(value, str | bytes | bytearray):
        raise TypeError("text is not taken for a number")
    try:
        whole = int(operator.index(value))
    except TypeError:
        return float(value)
    return whole if -(2**63) <= whole < 2**64 else float(whole)  # more is no integer to JSON's readers
