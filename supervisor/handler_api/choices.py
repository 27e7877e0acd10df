"""What is allowed where a job's parameter is none of a few values: those of a `Literal` or an `Enum`.  Pure.

msgspec says which value is wrong and where, but not what it could have been.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec.inspect as kinds

from supervisor.text.printable import shortened

SHOWN = 200
"""Characters of allowed values that are listed; a message has room for more than this."""

_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


def choices_at(annotation: Any, path: str) -> str | None:
    """The values that are allowed at `path`, as msgspec writes it: `.sizes[0].unit`; None when that cannot be told."""
    places = [kinds.type_info(annotation)]
    for name, index in _STEP.findall(path):
        places = [inner for place in _alternatives(places) for inner in _inside(place, name, index)]
    allowed = [value for place in _alternatives(places) for value in _values(place)]
    return _listed(allowed) if allowed else None


def _alternatives(places: Iterable[kinds.Type]) -> Iterator[kinds.Type]:
    for place in places:
        match place:
            case kinds.UnionType(types=types):
                yield from _alternatives(types)
            case kinds.Metadata(type=inner):
                yield from _alternatives([inner])
            case _:
                yield place


def _inside(place: kinds.Type, name: str, index: str) -> Iterator[kinds.Type]:
    """What can be one step into `place`: in a field called `name`, or at `index`, which is "..." for any key."""
    match place:
        case (
            kinds.StructType(fields=fields)
            | kinds.DataclassType(fields=fields)
            | kinds.TypedDictType(fields=fields)
            | kinds.NamedTupleType(fields=fields)
        ):
            yield from (
                field.type
                for position, field in enumerate(fields)
                if field.encode_name == name or str(position) == index
            )
        case kinds.DictType(value_type=value) if index == "...":
            yield value
        case kinds.TupleType(item_types=items) if index.isdigit() and int(index) < len(items):
            yield items[int(index)]
        case kinds.CollectionType(item_type=item) if index:
            yield item


def _values(place: kinds.Type) -> Iterator[Any]:
    match place:
        case kinds.LiteralType(values=values):
            yield from values
        case kinds.EnumType(cls=cls):
            yield from (member.value for member in cls)


def _listed(values: Iterable[Any]) -> str:
    """As they are written in JSON; not all, if they are many or long."""
    listed = ", ".join(dict.fromkeys(json.dumps(value, ensure_ascii=False, default=str) for value in values))
    return shortened(listed, SHOWN)
