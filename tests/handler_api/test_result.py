"""What a handler may return, and what it is told when it may not."""

import contextlib
import dataclasses
import datetime
import enum
import inspect
import json
import math
import tracemalloc
from decimal import Decimal

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.handler_api.encoding import NotJson, encode_json
from supervisor.handler_api.result import InvalidResult, encode_result


class Point(msgspec.Struct):
    x: float
    y: float | None = None


@dataclasses.dataclass
class Line:
    points: list[Point]


class Ratio(enum.Enum):
    UNKNOWN = math.nan
    PARTS = (1, 2)


class Float(float):
    """As NumPy's float64 is one."""


@attrs.define
class Mark:
    x: float
    _note: float = math.nan


@attrs.define(slots=False)
class Sum:
    parts: list[Mark]

    def __attrs_post_init__(self):
        self.total = sum(mark.x for mark in self.parts)


class Unshown:
    def __repr__(self):
        raise LookupError


class Number:
    """As NumPy's are, but for those that are Python's as well."""

    def __repr__(self):
        return "<3>"

    def item(self): ...
    def tolist(self): ...


class Array(Number):
    def __len__(self): ...


for like_numpys in (Number, Array):
    like_numpys.__module__ = "numpy"


class Whole(int):
    """As subclasses of int are."""


def test_nothing_is_no_result():
    assert encode_result(None) is None


@pytest.mark.parametrize("value", [b"\x89PNG", bytearray(b"\x89PNG"), memoryview(b"\x89PNG")])
def test_bytes_are_the_result_as_they_are(value):
    assert encode_result(value) == b"\x89PNG"


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ({"a": [1, 2.5, None, True, "ä"]}, '{"a":[1,2.5,null,true,"ä"]}'),
        (Line([Point(1.0, 2.0), Point(3.0)]), '{"points":[{"x":1.0,"y":2.0},{"x":3.0,"y":null}]}'),
        ([Mark(1.0), Sum([])], '[{"x":1.0},{"parts":[],"total":0}]'),
        ([Mark(None)], '[{"x":null}]'),
        ((1, 2), "[1,2]"),
        (datetime.date(2026, 4, 1), '"2026-04-01"'),
        (Decimal("1.10"), '"1.10"'),
        (Float(1.5), "1.5"),
        ({"a": Float(1.5)}, '{"a":1.5}'),
        ("NaN", '"NaN"'),
        (10**30, str(10**30)),
        ({"nan": {"-inf": {"NaN": {"Infinity": None}}}}, '{"nan":{"-inf":{"NaN":{"Infinity":null}}}}'),
        ({1.5: {2026: {datetime.date(2026, 4, 1): 'nan":'}}}, r'{"1.5":{"2026":{"2026-04-01":"nan\":"}}}'),
        ("", '""'),
        (False, "false"),
    ],
)
def test_anything_else_becomes_compact_json(value, encoded):
    assert encode_result(value) == encoded.encode()


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (math.nan, "value is nan"),
        ([1, -math.inf], "value[1] is -inf"),
        ({"a": {"b": math.inf}}, "value['a']['b'] is inf"),
        (Line([Point(1.0), Point(math.nan)]), "value.points[1].x is nan"),
        ([Mark(math.nan)], "value[0].x is nan"),
        (Sum([Mark(math.nan)]), "value.parts[0].x is nan"),
        (Sum([Mark(math.inf), Mark(-math.inf)]), "value.parts[0].x is inf"),
        (Sum([Mark(1e308), Mark(1e308)]), "value.total is inf"),
        ((None, math.nan), "value[1] is nan"),
        (Decimal("NaN"), "value is NaN"),
        ([Decimal("-Infinity")], "value[0] is -Infinity"),
        ([Decimal("sNaN")], "value[0] is sNaN"),
        ([Ratio.UNKNOWN], "value[0] is nan"),
        ([Float(math.nan)], "value[0] is nan"),
        ({math.nan: 1}, "the key nan of value is nan"),
        ([{"a": {1.5: 1, -math.inf: 1}}], "the key -inf of value[0]['a'] is -inf"),
        ({Decimal("NaN"): 1}, "the key Decimal('NaN') of value is NaN"),
        ({Ratio.UNKNOWN: 1}, "the key <Ratio.UNKNOWN: nan> of value is nan"),
        ({"a": {Float(math.inf): math.nan}}, "the key inf of value['a'] is inf"),
        ({"a": {1.5: math.nan}}, "value['a'][1.5] is nan"),
        ({"nan": {1.5: math.nan}}, "value['nan'][1.5] is nan"),
    ],
)
def test_what_is_not_a_number_is_refused_with_its_place(value, place):
    with pytest.raises(InvalidResult) as caught:
        encode_result(value)

    assert str(caught.value) == f"the result is not JSON: {place}, which is not a number in JSON"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (object(), "value is of type object"),
        ({"pages": [1, range(3)]}, "value['pages'][1] is of type range"),
        ({"pages": (page for page in "ab")}, "value['pages'] is of type generator"),
        ({"a": Number()}, "value['a'] is of type numpy.Number, which has no JSON: convert it with .item()"),
        ({"a": Array()}, "value['a'] is of type numpy.Array, which has no JSON: convert it with .tolist()"),
        ({"a": 10**6000}, "value['a'] is a number of more than 4300 digits, which is too long"),
        ({-(10**6000): 1}, "the key <int> of value is a number of more than 4300 digits, which is too long"),
        ([Whole(10**6000)], "value[0] is a number of more than 4300 digits, which is too long"),
        ({"a": "\ud800"}, "value['a'] is text with a lone surrogate"),
        ({(1, 2): 3}, "the key (1, 2) of value is of type tuple, which cannot be a key in JSON"),
        ({"a": [{None: 1}]}, "the key None of value['a'][0] is of type NoneType, which cannot be a key in JSON"),
        ({"a": 1, "\ud800": 1}, r"the key '\ud800' of value is text with a lone surrogate"),
        ({"\ud800": object()}, r"the key '\ud800' of value is text with a lone surrogate"),
        ([{"a": 1}, {Ratio.PARTS: 1}], "the key <Ratio.PARTS: (1, 2)> of value[1] is of type tuple, which cannot be"),
        ({1: 1, 2.5: 1, "a": [], b"a": object()}, "value[b'a'] is of type object, which has no JSON"),
        ({Number(): 1}, "the key <3> of value is of type numpy.Number, which cannot be a key in JSON: convert it"),
        (
            {Unshown(): 1},
            "the key <tests.handler_api.test_result.Unshown> of value is of type tests.handler_api.test_result.Unshown",
        ),
        ({"x" * 10**6: object()}, f"value['{'x' * 99}…] is of type object"),
    ],
)
def test_what_has_no_json_is_refused_with_its_place_and_type(value, place):
    with pytest.raises(InvalidResult) as caught:
        encode_result(value)

    assert str(caught.value).startswith(f"the result is not JSON: {place}")


def test_a_field_without_a_value_is_no_fault():
    value = [Point(msgspec.UNSET, 1.0), object()]

    with pytest.raises(InvalidResult, match=r"value\[1\] is of type object"):
        encode_result(value)


def test_a_coroutine_is_closed_and_its_author_told_why_it_is_one():
    async def handle(): ...

    coroutine = handle()

    with pytest.raises(InvalidResult, match="without awaiting it: make the handler an `async def` that"):
        encode_result(coroutine)

    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_what_refers_to_itself_is_refused():
    value = {"a": []}
    value["a"].append(value)

    with pytest.raises(InvalidResult, match="refers to itself"):
        encode_result(value)


def test_what_refers_to_itself_beside_what_is_no_number_is_refused():
    value = [math.nan]
    value.append(value)

    with pytest.raises(InvalidResult, match="refers to itself"):
        encode_result(value)


@pytest.mark.parametrize("row", [None, math.nan, object()])
def test_one_odd_value_among_many_costs_no_memory(row):
    value = [{"v": 0.5, "w": number} for number in range(20_000)]
    value.append({"v": row, "w": 0})

    tracemalloc.start()
    with contextlib.suppress(NotJson):
        encode_json(value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2 * len(json.dumps(value[:-1]))


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(values)
def test_json_that_is_written_reads_back_and_nothing_turns_into_null(value):
    try:
        encoded = encode_json(value)
    except NotJson:
        assert not has_strict_json(value)
        return

    assert has_strict_json(value)
    assert json.loads(encoded) == value


def has_strict_json(value):
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return False
    return True
