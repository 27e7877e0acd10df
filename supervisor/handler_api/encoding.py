"""JSON encoding of handlers' values: results and event payloads.  Pure.  Tested by tests/handler_api/test_result.py.

msgspec encodes fast, but writes NaN and Infinity as `null`, and its errors name only the type.  This module examines
both after the encoding, so that the common case costs nothing.
"""

from __future__ import annotations

import datetime
import math
import sys
from collections.abc import Sized
from decimal import Decimal

import msgspec

from supervisor.handler_api.locate import ValueWalk, content_of, parts_of, shown_step
from supervisor.handler_api.numbers import plain_number
from supervisor.text.value_repr import type_name, value_repr

_NEVER_NAN: frozenset[type] = frozenset((type(None), bool, int, str, bytes, datetime.date, datetime.datetime))


class NotJson(ValueError):
    """A value cannot be encoded as JSON.  The message names the place, as `value['pages'][3].size is NaN`."""


def encode_json(value: object) -> bytes:
    """Return `value` as compact UTF-8 JSON.

    Accepts the types of msgspec: the JSON types, dataclasses, structs, tuples, sets, enums, dates, UUIDs, Decimals,
    bytes (as base64).  Also accepts subclasses of str, int and float, and single numbers of NumPy and other libraries,
    such as `Fraction`.  Raises `NotJson`.
    """
    try:
        encoded = msgspec.json.encode(value, enc_hook=_plain)
    except RecursionError:
        raise NotJson("value refers to itself or is nested too deeply") from None
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
        raise NotJson(_first_fault(value) or f"value has no JSON: {error}") from error
    is_suspicious = _has_texts_of_no_numbers(encoded)
    if is_suspicious or b"null" in encoded:  # usually harmless: None, or the text "NaN"
        _refuse_numbers_that_are_none(value, keys=is_suspicious)
    return encoded


def _has_texts_of_no_numbers(encoded: bytes) -> bool:
    """True if the text may hold a NaN or infinity as a Decimal or as a key; as a float they are `null`."""
    # Each search takes a fifth of the time of the encoding.  JSON of numbers only has no quotes.
    return b'"' in encoded and (
        b'NaN"' in encoded or b'Infinity"' in encoded or b'nan":' in encoded or b'inf":' in encoded
    )


def _plain(value: object) -> object:
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    if (number := plain_number(value)) is not None:
        return number
    raise NotImplementedError(f"it holds a {type_name(value)} where JSON has no place for one")


def _refuse_numbers_that_are_none(value: object, *, keys: bool) -> None:
    walk = ValueWalk(value, past=_NEVER_NAN, keys=keys)
    for part in walk:
        if _is_no_number(part):
            raise NotJson(f"{walk.place} is {part}, which is not a number in JSON")


def _is_no_number(part: object) -> bool:
    if isinstance(part, Decimal):
        return not part.is_finite()
    number = part if isinstance(part, float) else plain_number(part)
    return isinstance(number, float) and not math.isfinite(number)


def _first_fault(value: object) -> str | None:
    """Name the first part that cannot be encoded: its containers fail too, and the parts before it do not."""
    place, part = "value", content_of(value)
    while (parts := parts_of(part)) is not None:
        for step, inner in parts:
            if isinstance(part, dict) and (fault := _fault_of(step, is_key=True)):
                return f"the key {value_repr(step)} of {place} is {fault}"
            if _fault_of(inner):
                place, part = place + shown_step(part, step), content_of(inner)
                break
        else:
            return None
    return f"{place} is {_fault_of(part)}"


def _fault_of(part: object, *, is_key: bool = False) -> str | None:
    """Describe why a part cannot be encoded; return None if it can."""
    try:
        msgspec.json.encode({part: None} if is_key else part, enc_hook=_plain)
    except UnicodeEncodeError:
        return "text with a lone surrogate, which UTF-8 cannot hold"
    except Exception as error:  # noqa: BLE001 - code of the value itself may raise anything while it is encoded
        content = content_of(part)
        if isinstance(content, int) and isinstance(error, ValueError):
            return f"a number of more than {sys.get_int_max_str_digits()} digits, which is too long"
        why = "which cannot be a key in JSON" if is_key else "which has no JSON"
        return f"of type {type_name(content)}, {why}{_remedy(content)}"
    return None


def _remedy(part: object) -> str:
    """Return advice to convert a number or array of NumPy, or of a library like it, to a Python type."""
    way = "tolist" if isinstance(part, Sized) else "item"
    return f": convert it with .{way}()" if callable(getattr(type(part), way, None)) else ""
