"""How values of handlers become JSON: results and the payloads of events.  Pure.

msgspec does the work and does it fast, but writes NaN and Infinity as `null` and says of what it cannot encode only
the type.  Both are looked into here, after the fact, so that the common case pays nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum

import msgspec

# How the output shows that a number may have been lost; most outputs that show it are innocent (None, "NaN").
_SUSPICIOUS = (b"null", b'NaN"', b'Infinity"')


class NotJson(ValueError):
    """A value has no JSON: the message is one sentence and names the place, as `value['pages'][3].size is NaN`."""


def encode_json(value: object) -> bytes:
    """Return `value` as compact UTF-8 JSON.

    Takes what msgspec takes: the JSON types, dataclasses, structs, tuples, sets, enums, dates, UUIDs, Decimals, bytes
    (as base64); besides, subclasses of str, int and float, as NumPy's float64 is one.  Raises `NotJson`.
    """
    try:
        encoded = msgspec.json.encode(value, enc_hook=_plain)
    except RecursionError:
        raise NotJson("value refers to itself or is nested too deeply") from None
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
        raise NotJson(_first_fault(value) or f"value has no JSON: {error}") from error
    if any(sign in encoded for sign in _SUSPICIOUS):
        _refuse_numbers_that_are_none(value)
    return encoded


def _plain(value: object) -> object:
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    raise NotImplementedError(f"it holds a {type(value).__qualname__} where JSON has no place for one")


def _refuse_numbers_that_are_none(value: object) -> None:
    for path, leaf in _leaves(value):
        if (isinstance(leaf, float) and not math.isfinite(leaf)) or (
            isinstance(leaf, Decimal) and not leaf.is_finite()
        ):
            raise NotJson(f"{path} is {leaf}, which is not a number in JSON")


def _first_fault(value: object) -> str | None:
    """Name the first part that cannot be encoded on its own."""
    for path, leaf in _leaves(value):
        try:
            msgspec.json.encode(leaf, enc_hook=_plain)
        except UnicodeEncodeError:
            return f"{path} is text with a lone surrogate, which UTF-8 cannot hold"
        except Exception:  # noqa: BLE001 - an encoding that failed is taken apart, whatever it was that failed
            return f"{path} is of type {type(leaf).__qualname__}, which has no JSON"
    return None


def _leaves(value: object) -> Iterator[tuple[str, object]]:
    """Yield everything in `value` that is no container, with its path; in order, and without recursion."""
    waiting: list[tuple[str, object]] = [("value", value)]
    while waiting:
        path, part = waiting.pop()
        parts = _parts(path, part)
        if parts is None:
            yield path, part.value if isinstance(part, Enum) else part
        else:
            waiting.extend(reversed(parts))


def _parts(path: str, part: object) -> list[tuple[str, object]] | None:
    """Return what a container holds, None for anything else."""
    if isinstance(part, dict):
        return [(f"{path}[{key!r}]", member) for key, member in part.items()]
    if isinstance(part, list | tuple | set | frozenset):
        return [(f"{path}[{number}]", member) for number, member in enumerate(part)]
    if isinstance(part, msgspec.Struct):
        names: tuple[str, ...] = part.__struct_fields__
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        names = tuple(field.name for field in dataclasses.fields(part))
    else:
        return None
    return [(f"{path}.{name}", getattr(part, name)) for name in names if hasattr(part, name)]
