"""References in parameters: `${inputs.x}` and `${state.y.z}`.  Pure.

A value that is one whole `${...}` becomes what it refers to, with its JSON type; inside a longer text it becomes text
(a string as it is, anything else as JSON).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from supervisor.devserver.errors import DeadReference

ROOTS = ("inputs", "state")

_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


def resolve(value: Any, scope: Mapping[str, Any]) -> Any:
    """`value` with all references replaced, at any depth."""
    match value:
        case str():
            return _resolve_text(value, scope)
        case dict():
            return {name: resolve(item, scope) for name, item in value.items()}
        case list():
            return [resolve(item, scope) for item in value]
        case _:
            return value


def look_up(path: str, scope: Mapping[str, Any]) -> Any:
    """What the dotted `path` leads to; numbers reach into lists."""
    value: Any = scope
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise DeadReference(f"${{{path}}} leads nowhere: there is no {part!r}")
    return value


def verify(value: Any) -> None:
    """Raise `DeadReference` unless every reference in `value` begins at a known root."""
    match value:
        case str():
            for path in _REFERENCE.findall(value):
                _verify_path(path.strip())
        case dict():
            for item in value.values():
                verify(item)
        case list():
            for item in value:
                verify(item)


def _verify_path(path: str) -> None:
    root, dot, rest = path.partition(".")
    if root not in ROOTS or (dot and not rest):
        raise DeadReference(f"${{{path}}} is not a reference: it must begin with inputs. or state.")


def _resolve_text(text: str, scope: Mapping[str, Any]) -> Any:
    whole = _REFERENCE.fullmatch(text)
    if whole:
        return look_up(whole[1].strip(), scope)
    return _REFERENCE.sub(lambda found: _as_text(look_up(found[1].strip(), scope)), text)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
