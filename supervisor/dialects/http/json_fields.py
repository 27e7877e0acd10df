"""The fields of a JSON object that no parser takes as a whole.  Pure.

What one field holds, text that is no Unicode for one, or values nested without end, must not hide the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

import msgspec

MAX_TOKENS = 1_000_000
"""Texts, brackets and commas.  More are not looked through: these take a third of a second."""

_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN = re.compile(_TEXT + rb'|["{}\[\],]', re.DOTALL)  # a quotation mark alone: of a text without an end
_MEMBER = re.compile(rb"\s*(" + _TEXT + rb")\s*:(.*)", re.DOTALL)


class NotAnObject(Exception):
    """It is not even the outline of an object.  Caught by the schema."""


def fields_of(body: bytes) -> dict[str, bytes]:
    """Each field's value, by name, as the bytes that stand there; whether these are JSON is not looked at."""
    fields: dict[str, bytes] = {}
    for member in _members(body.strip()):
        if match := _MEMBER.fullmatch(member):
            name, value = match.groups()
            fields[_decoded(name)] = value.strip()
        elif member.strip():
            raise NotAnObject
    return fields


def _members(content: bytes) -> Iterator[bytes]:
    """Cut the object at its own commas."""
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
        return ""  # none that anybody asks for
