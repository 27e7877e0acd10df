"""A walk through all parts of a handler's value, to find the one that is at fault.  Pure; in the child.

It says nothing of what a fault is (`encoding` does).  Millions of parts are passed by for each one that is of interest,
so that they cost little time and no memory: the place of a part is made only when it is asked for.
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
    """A container that the walk is in, what is left of it, and the step to the part that the walk is at.

    The keys of a dict are a container of their own, walked through before its values.
    """

    container: object
    rest: Iterator[tuple[object, object]]
    step: object = None


class ValueWalk:
    """Iterate over it, once: everything in `value` that is no container, in order and without recursion.

    Passed by are finite floats and what is exactly of one of the types in `past`; and keys, unless they are asked for.
    """

    def __init__(self, value: object, *, past: frozenset[type], keys: bool = False) -> None:
        self._past = past
        self._takes_keys = keys
        self._levels = [_Level(None, iter([(None, value)]))]

    @property
    def place(self) -> str:
        """Where the part that was yielded last stands, as `value['pages'][3].size`."""
        if not self._is_at_key:
            return _path(self._levels)
        return f"the key {value_repr(self._levels[-1].step)} of {_path(self._levels[:-2])}"

    @property
    def _is_at_key(self) -> bool:
        return self._takes_keys and isinstance(self._levels[-1].container, KeysView)

    def __iter__(self) -> Iterator[object]:
        past, isfinite = self._past, math.isfinite  # looked up once: this loop is all that the walk costs
        while self._levels:
            level = self._levels[-1]
            for level.step, part in level.rest:  # noqa: B020 - the walk stands there, for `place` to be read
                if type(part) in past or (type(part) is float and isfinite(part)):
                    continue
                whole = content_of(part)
                if self._enters(whole):
                    break
                yield whole
            else:
                self._levels.pop()

    def _enters(self, whole: object) -> bool:
        """Go on inside of it, if it is a container and no key."""
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
    """Return what is encoded in place of a part: the value of a member of an enum."""
    return part.value if isinstance(part, Enum) else part


def parts_of(whole: object) -> Iterator[tuple[object, object]] | None:
    """Return what a container holds, each with the key, number or name that leads to it; None for anything else."""
    if isinstance(whole, dict):
        return iter(dict.items(whole))  # not its own method: what a subclass makes of that, msgspec does not ask
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
    """Return how the way to a part goes on, from its container."""
    return f"[{value_repr(step)}]" if isinstance(container, (dict, *_ROWS)) else f".{step}"


def _attributes(whole: object, names: Iterable[str]) -> Iterator[tuple[str, object]]:
    """Those that are encoded: what is `UNSET` is left out, as what is missing."""
    unset = msgspec.UNSET
    return ((name, part) for name in names if (part := getattr(whole, name, unset)) is not unset)


def _public_names(whole: object) -> Iterator[str]:
    """What msgspec takes of an instance of an attrs class: all that it has, fields or not, but what begins with `_`."""
    slots = (name for kind in type(whole).__mro__ for name in vars(kind).get("__slots__", ()))
    return (name for name in chain(getattr(whole, "__dict__", ()), slots) if not name.startswith("_"))
