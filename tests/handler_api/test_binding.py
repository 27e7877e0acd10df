"""How JSON parameters become a handler's arguments."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import Context
from supervisor.handler_api.binding import Binding, InvalidParameters, decode_parameters

if TYPE_CHECKING:
    from nowhere import Unknown

CONTEXT: Any = object()


def bind(function, parameters):
    """All arguments of a call, as the child puts them together."""
    binding = Binding.of(function)
    arguments = binding.bind(parameters.encode())
    return arguments if binding.context is None else {binding.context: CONTEXT, **arguments}


@dataclasses.dataclass
class Size:
    width: int
    height: int = 1


class Tree(msgspec.Struct):
    name: str
    children: list[Tree] = []


class Unit(enum.Enum):
    MILLIMETRE = "mm"
    INCH = "in"


@dataclasses.dataclass
class Length:
    unit: Unit


WRONG_UNIT = """is invalid: must be one of "mm", "in", not 'ft'"""


# What fits


def test_parameters_become_arguments_by_name():
    def function(context, width, height): ...

    assert bind(function, '{"height": 2, "width": 1}') == {"context": CONTEXT, "width": 1, "height": 2}


def test_the_context_is_known_by_its_annotation_whatever_its_name():
    def function(job: Context, width): ...

    assert bind(function, '{"width": 1}') == {"job": CONTEXT, "width": 1}


def test_a_handler_needs_no_context():
    def function(width): ...

    assert bind(function, '{"width": 1}') == {"width": 1}


def test_a_handler_needs_no_parameter_at_all():
    def function(): ...

    assert bind(function, "{}") == {}


@pytest.mark.parametrize("parameters", ["", " ", "null", "{}", "\n{ }"])
def test_no_parameters_leave_the_defaults(parameters):
    def function(context, width: int = 640, *, deep: bool = True): ...

    assert bind(function, parameters) == {"context": CONTEXT}


def test_the_rest_takes_what_is_left():
    def function(width: int, **rest: float): ...

    assert bind(function, '{"width": 1, "x": 0.5, "any name": 2}') == {"width": 1, "x": 0.5, "any name": 2.0}


@pytest.mark.parametrize(
    ("annotation", "json", "value"),
    [
        (int, "3", 3),
        (float, "3", 3.0),
        (str, '"3"', "3"),
        (int | None, "null", None),
        (list[int], "[1]", [1]),
        (Literal["a", "b"], '"a"', "a"),
        (Size, '{"width": 2}', Size(2)),
        (list[Size], '[{"width": 2, "height": 3}]', [Size(2, 3)]),
        (Tree, '{"name": "a", "children": [{"name": "b"}]}', Tree("a", [Tree("b")])),
        (datetime.date, '"2026-04-01"', datetime.date(2026, 4, 1)),
        (bytes, '"YWI="', b"ab"),
        (Annotated[int, msgspec.Meta(gt=0)], "1", 1),
        (Any, '{"a": [1, null]}', {"a": [1, None]}),
        (object, "[1]", [1]),
        (dict[str, object], '{"a": 1}', {"a": 1}),
        (Iterable, "[1]", [1]),
    ],
)
def test_annotations_are_honoured(annotation, json, value):
    def function(x): ...

    function.__annotations__["x"] = annotation

    assert bind(function, f'{{"x": {json}}}') == {"x": value}


def test_annotations_that_are_text_are_resolved_in_their_module():
    def function(size: Size, tree: Tree | None = None): ...

    assert bind(function, '{"size": {"width": 2}}') == {"size": Size(2)}


def test_the_type_of_the_result_need_not_be_resolvable():
    def function(width: int) -> Unknown: ...

    assert bind(function, '{"width": 1}') == {"width": 1}


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_whatever_is_an_object_fits_a_handler_that_takes_anything(parameters):
    def function(**parameters): ...

    raw = msgspec.json.encode(parameters)

    assert Binding.of(function).bind(raw) == decode_parameters(raw) == parameters


# What does not fit


def test_all_faults_are_told_at_once():
    def function(context, width: int, height: int, size: Size, name="x"): ...

    with pytest.raises(InvalidParameters) as caught:
        bind(function, '{"width": "1", "size": {"width": null}, "colour": "red", "context": 1}')

    assert str(caught.value).split("; ") == [
        "parameter 'height' is missing",
        "parameter 'width' is invalid: expected int, got str",
        "parameter 'size.width' is invalid: expected int, got null",
        "parameter 'colour' is unknown",
        "parameter 'context' is unknown",
    ]


def test_a_first_parameter_that_may_be_meant_for_the_context_is_missing_with_a_hint():
    def function(ctx, width): ...

    def other(width, ctx): ...

    with pytest.raises(InvalidParameters) as hinted:
        bind(function, "{}")
    with pytest.raises(InvalidParameters) as plain:
        bind(other, "{}")

    hint = "for the job's context name it 'context', or annotate it as Context"
    assert str(hinted.value) == f"parameter 'ctx' is missing ({hint}); parameter 'width' is missing"
    assert str(plain.value) == "parameter 'width' is missing; parameter 'ctx' is missing"
    assert bind(function, '{"ctx": 1, "width": 2}') == {"ctx": 1, "width": 2}


@pytest.mark.parametrize(
    ("annotation", "json", "fault"),
    [
        (int, '"3"', "parameter 'x' is invalid: expected int, got str"),
        (int, "1.5", "parameter 'x' is invalid: expected int, got float"),
        (str, "3", "parameter 'x' is invalid: expected str, got int"),
        (int, "null", "parameter 'x' is invalid: expected int, got null"),
        (list[int], '[1, "a"]', "parameter 'x[1]' is invalid: expected int, got str"),
        (dict[str, int], '{"a": "b"}', "parameter 'x[...]' is invalid: expected int, got str"),
        (Literal["a", "b"], '"c"', """parameter 'x' is invalid: must be one of "a", "b", not 'c'"""),
        (Literal["a", 1, None], '"c"', """parameter 'x' is invalid: must be one of null, 1, "a", not 'c'"""),
        (Unit | None, '"ft"', """parameter 'x' is invalid: must be one of "mm", "in", not 'ft'"""),
        (Annotated[Unit, msgspec.Meta(title="unit")], "3", "parameter 'x' is invalid: expected str, got int"),
        (list[Length], '[{"unit": "in"}, {"unit": "ft"}]', f"parameter 'x[1].unit' {WRONG_UNIT}"),
        (dict[str, tuple[int, Unit]], '{"a": [1, "ft"]}', f"parameter 'x[...][1]' {WRONG_UNIT}"),
        (set[Annotated[Unit, msgspec.Meta(title="unit")]], '["ft"]', f"parameter 'x[0]' {WRONG_UNIT}"),
        (dict[Unit, int], '{"ft": 1}', "parameter 'x' is invalid: invalid enum value 'ft' - at key in $"),
        (Size, "{}", "parameter 'x' is invalid: object missing required field width"),
        (Annotated[int, msgspec.Meta(gt=0)], "0", "parameter 'x' is invalid: expected int >= 1"),
        (datetime.date, '"soon"', "parameter 'x' is invalid: invalid RFC3339 encoded date"),
    ],
)
def test_a_wrong_type_is_told_with_its_place(annotation, json, fault):
    def function(x): ...

    function.__annotations__["x"] = annotation

    with pytest.raises(InvalidParameters) as caught:
        bind(function, f'{{"x": {json}}}')

    assert str(caught.value) == fault


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    width: int


def test_unknown_fields_inside_a_parameter_are_ignored_unless_its_class_forbids_them():
    def lenient(x: Size): ...

    def strict(x: Strict): ...

    parameters = '{"x": {"width": 1, "colour": "red"}}'
    assert bind(lenient, parameters) == {"x": Size(1)}
    with pytest.raises(InvalidParameters, match=r"^parameter 'x' is invalid: object contains unknown field colour$"):
        bind(strict, parameters)


def test_of_many_allowed_values_only_the_first_are_told():
    def function(x): ...

    function.__annotations__["x"] = Literal[tuple(range(1000, 3000))]

    with pytest.raises(InvalidParameters) as caught:
        bind(function, '{"x": 1}')

    assert str(caught.value).startswith("parameter 'x' is invalid: must be one of 1000, 1001, ")
    assert str(caught.value).endswith("…, not 1")
    assert len(str(caught.value)) < 300


def test_the_context_cannot_be_given_even_to_a_handler_that_takes_anything():
    def function(context, **rest): ...

    with pytest.raises(InvalidParameters, match="parameter 'context' is unknown"):
        bind(function, '{"context": 1}')


@pytest.mark.parametrize("parameters", ["[1]", "3", '"x"'])
def test_parameters_that_are_no_object_are_refused(parameters):
    with pytest.raises(InvalidParameters, match="the parameters are not a JSON object"):
        bind(lambda **parameters: parameters, parameters)


@pytest.mark.parametrize("raw", [b"{", b'{"a": }', b'{"a": "\xff"}', b'{"a":' + b"[" * 100_000])
def test_parameters_that_cannot_be_read_are_refused(raw):
    def function(**parameters): ...

    with pytest.raises(InvalidParameters):
        Binding.of(function).bind(raw)
    with pytest.raises(InvalidParameters):
        decode_parameters(raw)


# What no job could ever fit


def positional_only(width, /): ...


def any_number(*sizes): ...


def late_context(width, job: Context): ...


def context_of_another_type(context: int): ...


def thread(worker: threading.Thread): ...


def path_in_a_list(files: list[Path]): ...


def callback(done: Callable[[], None]): ...


def two_lists(both: list[int] | set[int]): ...


def unresolvable(size: Unknown): ...


class Holder(msgspec.Struct):
    path: Path


def path_in_a_struct(holder: Holder): ...


def path_in_the_rest(**rest: Path): ...


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (positional_only, "parameter 'width' is positional-only, but a job passes parameters by name"),
        (any_number, "'*sizes' cannot be used"),
        (late_context, "the context must be first, but 'job' is not the first parameter"),
        (context_of_another_type, "the parameter 'context' receives the Context, but is annotated as <class 'int'>"),
        (thread, "the annotation of 'worker' cannot be decoded from JSON: Thread"),
        (path_in_a_list, "the annotation of 'files' cannot be decoded from JSON: Path"),
        (callback, "the annotation of 'done' cannot be decoded from JSON: Callable"),
        (two_lists, "the annotation of 'both' cannot be decoded from JSON: Type unions may not contain"),
        (unresolvable, "the annotation of 'size' cannot be resolved: name 'Unknown' is not defined"),
        (path_in_a_struct, "the annotation of 'holder' cannot be decoded from JSON: Path"),
        (path_in_the_rest, "the annotation of 'rest' cannot be decoded from JSON: Path"),
    ],
)
def test_a_signature_that_no_job_could_fit_is_refused_with_the_parameters_name(function, sentence):
    with pytest.raises(TypeError) as caught:
        Binding.of(function)

    assert str(caught.value).startswith(sentence)
