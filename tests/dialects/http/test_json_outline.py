"""The outline of a text is what a parser finds in its outer object, wherever the text is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.dialects.http import json_outline as outline
from supervisor.dialects.http.json_outline import MAX_OUTLINE_BYTES, Outline, OutlineTooLarge

CHARACTERS = st.sampled_from('"\\/{}[],:xä') | st.characters(codec="utf-8")
TEXT = st.text(CHARACTERS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=40,
)


def outline_of(body: bytes, cuts: list[int] | None = None) -> bytes:
    found = Outline()
    ends = [*sorted(cuts or []), len(body)]
    for start, end in zip([0, *ends], ends, strict=False):
        found.feed(body[start:end])
    return bytes(found)


def restored(told: Any, body: bytes) -> Any:
    """A value of an outline, with what was left out."""
    return json.loads(body[slice(*told)]) if isinstance(told, list) else told


@given(
    st.dictionaries(st.text(CHARACTERS, max_size=3), JSON),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
    st.lists(st.integers(0, 1000), max_size=8),
    st.integers(1, 50),
)
def test_an_outline_has_the_fields_that_a_parser_finds_wherever_the_text_is_cut(
    value: dict[str, Any], indent: int | None, ascii_only: bool, cuts: list[int], stride: int
) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outline, "STRIDE_BYTES", stride)  # so that small texts are read in many pieces
        patch.setattr(outline, "MAX_TEXT_BYTES", 40)  # longer than any name

        told = json.loads(outline_of(body, cuts))

    assert {name: restored(field, body) for name, field in told.items()} == value


@pytest.mark.parametrize(
    "inner",
    [
        b'{"text": "%b"}' % (b"x" * 3_000_000),
        b'{"text": "%b"}' % (b'\\\\\\"]' * 300_000),
        b"[%b1]" % (b"1," * 1_000_000),
        b"[%b1]" % (b'{"a":"}"},' * 200_000),
        b"[" * 1_000_000 + b"]" * 1_000_000,
        b'{"no JSON": \xff, NaN, "":}',
    ],
    ids=["one text", "escapes", "numbers", "objects", "depth", "nonsense"],
)
def test_nothing_of_what_is_deeper_is_kept(inner: bytes) -> None:
    body = b'{"a": 1, "inner": ' + inner + b', "z": [2]}'

    told = json.loads(outline_of(body, list(range(0, len(body), 100_000))))

    start, end = told["inner"]
    assert body[start:end] == inner
    assert body[slice(*told["z"])] == b"[2]"
    assert len(told) == 3


def test_a_long_text_is_left_out_as_well() -> None:
    body = b'{"a": "' + b'x\\"' * 500_000 + b'", "b": "[", "c": "' + b"x" * 1_000_000 + b'"}'

    told = json.loads(outline_of(body, list(range(0, len(body), 100_000))))

    assert {name: restored(field, body) for name, field in told.items()} == json.loads(body)
    assert [type(field) for field in told.values()] == [list, str, list]


def test_what_begins_in_the_same_piece_in_which_a_long_text_ends_is_found() -> None:
    body = b'{"a": "' + b"x" * 100_000 + b'", "parameters": {"b": [%b1]}}' % (b"1," * 100_000)

    told = json.loads(outline_of(body))

    assert {name: restored(field, body) for name, field in told.items()} == json.loads(body)


def test_what_is_small_is_refused_when_there_is_too_much_of_it() -> None:
    with pytest.raises(OutlineTooLarge):
        outline_of(b"{" + b'"a": 1,' * (MAX_OUTLINE_BYTES // 6))
