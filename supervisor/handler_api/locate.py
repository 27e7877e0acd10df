"""Iteration over all parts of a handler's value, to locate an invalid one.  Pure; runs in the child.

`encoding` decides which part is invalid.  A value may have millions of valid parts, so skipping one costs little time
and no memory, and the path of a part is built only on request.  Tested by tests/handler_api/test_result.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, KeysView
from enum import Enum
from itertools import chain

import msgspec

from supervisor.text.value_repr import value_repr

_ROWS = (list, tuple, set, frozenset)


@dataclasses.dataclass(slots=True)
class _Level:
    """A container on the current path, its remaining parts, and the key or index of the current part.

    The keys of a dict form a container of their own, visited before its values.
    """

    container: object
    rest: Iterator[tuple[object, object]]
    step: object = None


class ValueWalk:
    """One-time iterator over all parts of `value` that are not containers, in order and without recursion.

    Skips finite floats, parts whose exact type is in `past`, and, unless `keys` is true, the keys of dicts.
    """

    def __init__(self, value: object, *, past: frozenset[type], keys: bool = False) -> None:
        self._past = past
        self._takes_keys = keys
        self._levels = [_Level(None, iter([(None, value)]))]

    @property
    def place(self) -> str:
        """Path of the last yielded part, as `value['pages'][3].size`."""
        if not self._is_at_key:
            return _path(self._levels)
        return f"the key {value_repr(self._levels[-1].step)} of {_path(self._levels[:-2])}"

    @property
    def _is_at_key(self) -> bool:
        return self._takes_keys and isinstance(self._levels[-1].container, KeysView)

    def __iter__(self) -> Iterator[object]:
        past, isfinite = self._past, math.isfinite  # local names: this loop takes nearly all of the time
        while self._levels:
            level = self._levels[-1]
            for level.step, part in level.rest:  # noqa: B020 - `place` reads the current step
                if type(part) in past or (type(part) is float and isfinite(part)):
                    continue
                whole = content_of(part)
                if self._enters(whole):
                    break
                yield whole
            else:
                self._levels.pop()

    def _enters(self, whole: object) -> bool:
        """Enter `whole` if it is a container and not a key; return True if so."""
        parts = None if self._is_at_key else parts_of(whole)
        if parts is None:
            return False
        self._levels.append(_Level(whole, parts))
        if self._takes_keys and isinstance(whole, dict):
            keys = dict.keys(whole)
            self._levels.append(_Level(keys, zip(keys, keys, strict=True)))
        return True


def _path(levels: list[_Level]) -> str:
    return "value" + "".join(shown_step(level.container, level.step) for level in levels[1:])


def content_of(part: object) -> object:
    """Return the encoded value of a part: for a member of an enum, its value."""
    return part.value if isinstance(part, Enum) else part


def parts_of(whole: object) -> Iterator[tuple[object, object]] | None:
    """Return the parts of a container, each with its key, index or name; None if `whole` is not a container."""
    if isinstance(whole, dict):
        return iter(dict.items(whole))  # like msgspec, ignore an `items` method of a subclass
    if isinstance(whole, _ROWS):
        return enumerate(whole)
    if isinstance(whole, msgspec.Struct):
        return _attributes(whole, whole.__struct_fields__)
    if dataclasses.is_dataclass(whole) and not isinstance(whole, type):
        return _attributes(whole, [field.name for field in dataclasses.fields(whole)])
    if hasattr(type(whole), "__attrs_attrs__"):
        return _attributes(whole, _public_names(whole))
    return None


def shown_step(container: object, step: object) -> str:
    """Return one step of a path as text."""
    return f"[{value_repr(step)}]" if isinstance(container, (dict, *_ROWS)) else f".{step}"


def _attributes(whole: object, names: Iterable[str]) -> Iterator[tuple[str, object]]:
    """Yield the attributes that msgspec encodes: those that exist and are not `UNSET`."""
    unset = msgspec.UNSET
    return ((name, part) for name in names if (part := getattr(whole, name, unset)) is not unset)


def _public_names(whole: object) -> Iterator[str]:
    """Yield the names that msgspec encodes of an attrs instance: all attributes without a leading `_`."""
    slots = (name for kind in type(whole).__mro__ for name in vars(kind).get("__slots__", ()))
    return (name for name in chain(getattr(whole, "__dict__", ()), slots) if not name.startswith("_"))
