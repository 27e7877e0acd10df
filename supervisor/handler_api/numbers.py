"""Conversion of numbers of any library to Python's own, such as scalars of NumPy and PyTorch.  Pure; imports neither.

Tested by tests/handler_api/test_result.py and tests/handler_api/test_context.py.
"""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any, SupportsFloat, SupportsIndex

_KINDS = "biuf"
"""NumPy's kinds for booleans, signed and unsigned integers, and floats."""
_PLAIN = (bool, int, float)


def plain_number(value: object) -> bool | int | float | None:
    """Convert a single number of a library to a Python number; return None for anything else, including arrays."""
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if getattr(value, "ndim", None) == 0:  # a NumPy scalar that is not a `numbers.Number`, or an array of one number
        return _item(value)
    return None


def _item(value: Any) -> bool | int | float | None:
    if getattr(getattr(value, "dtype", None), "kind", "f") not in _KINDS:
        return None
    item = value.item() if callable(getattr(value, "item", None)) else None
    return item if isinstance(item, _PLAIN) else None


def finite_number(what: str, value: SupportsIndex | SupportsFloat | None) -> int | float | None:
    """Return a number for JSON; None for an unknown one: None, NaN, infinity.

    Accepts the arguments of `operator.index` and `float` except text.  Raises `TypeError` with `what` otherwise.
    """
    if value is None:
        return None
    try:
        number = _number(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} is not a number but of type {type(value).__name__}: {error}") from None
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _number(value: Any) -> int | float:
    if isinstance(value, str | bytes | bytearray):
        raise TypeError("text is not converted to a number")
    try:
        whole = int(operator.index(value))
    except TypeError:
        return float(value)
    return whole if -(2**63) <= whole < 2**64 else float(whole)  # larger integers are not portable in JSON
