"""Extraction of the fields of a JSON object that a parser rejects as a whole.  Pure.

One bad field, such as invalid Unicode or very deep nesting, must not hide the other fields.
Tested by tests/dialects/http/test_codec.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

import msgspec

MAX_TOKENS = 1_000_000
"""Limit of examined strings, brackets and commas, which take a third of a second."""

_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN = re.compile(_TEXT + rb'|["{}\[\],]', re.DOTALL)  # a single quotation mark begins an unterminated string
_MEMBER = re.compile(rb"\s*(" + _TEXT + rb")\s*:(.*)", re.DOTALL)


class NotAnObject(Exception):
    """The bytes do not have the structure of a JSON object.  Caught by the codec."""


def fields_of(body: bytes) -> dict[str, bytes]:
    """Return the raw bytes of each field's value by name, without validating them."""
    fields: dict[str, bytes] = {}
    for member in _members(body.strip()):
        if match := _MEMBER.fullmatch(member):
            name, value = match.groups()
            fields[_decoded(name)] = value.strip()
        elif member.strip():
            raise NotAnObject
    return fields


def _members(content: bytes) -> Iterator[bytes]:
    """Split the object at its top-level commas."""
    if not content.startswith(b"{"):
        raise NotAnObject
    depth, start = 0, 1
    for token in islice(_TOKEN.finditer(content), MAX_TOKENS):
        match token[0]:
            case b"{" | b"[":
                depth += 1
            case b"," if depth == 1:
                yield content[start : token.start()]
                start = token.end()
            case b"}" | b"]":
                depth -= 1
                if depth == 0:
                    break
            case b'"':
                raise NotAnObject
    if depth != 0 or token.end() != len(content):
        raise NotAnObject
    yield content[start : token.start()]


def _decoded(name: bytes) -> str:
    try:
        return msgspec.json.decode(name, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""  # an empty name, which matches no field
