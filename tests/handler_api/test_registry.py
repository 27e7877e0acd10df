"""The decorator and the registry: what they take, what they refuse, and how they say so."""

import functools
import sys
from decimal import Decimal
from fractions import Fraction

import pytest

from supervisor import Context, handler
from supervisor.handler_api.registry import Registry
from supervisor.limits import Limits


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """A registry of this test's own."""
    registry = Registry()
    # Not by import: the attribute `supervisor.handler` is the decorator.
    monkeypatch.setattr(sys.modules["supervisor.handler_api.registry"], "registry", registry)
    return registry


def resize(context: Context, width: int) -> int:
    """Make a picture smaller.

    Or larger.
    """
    return width


def claim(registry, name, module):
    """Register a function as another module would that stands in this file."""
    source = compile(f"@handler({name!r})\ndef function(): ...", __file__, "exec")
    exec(source, {"handler": handler, "__name__": module})
    return registry._claims[name][-1]


def test_the_function_stays_what_it_is():
    assert handler("resize")(resize) is resize


def test_a_handler_is_known_with_its_place_and_limits(registry):
    handler("resize", timeout="10m", cancel_grace=0.5, idempotent=True)(resize)

    known = registry.get("resize")

    assert known.function is resize
    assert known.limits == Limits(timeout=600.0, cancel_grace=0.5, idempotent=True)
    assert known.summary == "Make a picture smaller."
    assert known.module == __name__
    assert known.file == __file__
    assert known.line == resize.__code__.co_firstlineno
    assert not known.is_async


def test_limits_that_are_not_given_are_left_to_the_settings(registry):
    handler("resize")(resize)

    assert registry.get("resize").limits == Limits(timeout=None, cancel_grace=None, idempotent=False)


def test_a_coroutine_function_is_known_as_one(registry):
    async def wait():
        pass

    handler("wait")(wait)

    assert registry.get("wait").is_async


def test_a_wrapped_function_is_known_by_the_place_and_parameters_of_the_inner_one(registry):
    @functools.wraps(resize)
    def wrapper(*args, **kwargs):
        return resize(*args, **kwargs)

    handler("resize")(wrapper)

    known = registry.get("resize")
    assert known.line == resize.__code__.co_firstlineno
    assert known.parameters.bind(b'{"width": 1}') == {"width": 1}


@pytest.mark.parametrize("name", ["", " ", " resize", "re\nsize", "resize\x00"])
def test_an_action_needs_a_name(registry, name):
    with pytest.raises(ValueError, match="the name of an action must be printable text"):
        handler(name)(resize)

    assert registry.handlers() == ()


def test_a_forgotten_name_is_explained():
    with pytest.raises(TypeError, match=r"as in @handler\(\"resize\"\), not <function resize"):
        handler(resize)
    with pytest.raises(TypeError, match=r"^@handler needs the name of an action, as in @handler\(\"resize\"\)$"):
        handler()


@pytest.mark.parametrize(
    ("limits", "error", "sentence"),
    [
        ({"timeout": "soon"}, ValueError, "timeout: 'soon' is not a duration"),
        ({"timeout": -1}, ValueError, "timeout: -1 is not a duration"),
        ({"timeout": 0}, ValueError, "timeout must be more than zero"),
        ({"cancel_grace": "1"}, None, None),
        ({"cancel_grace": 0}, None, None),
        ({"cancel_grace": "x"}, ValueError, "cancel_grace: 'x' is not a duration"),
        ({"idempotent": "yes"}, TypeError, "idempotent is True or False, not 'yes'"),
        ({"timeuot": "10m"}, TypeError, "there is no option 'timeuot'; the options are timeout, cancel_grace, "),
    ],
)
def test_limits_that_make_no_sense_are_refused_with_the_functions_name(limits, error, sentence):
    if error is None:
        handler("resize", **limits)(resize)
        return

    with pytest.raises(error) as caught:
        handler("resize", **limits)(resize)

    assert str(caught.value).startswith(f"handler 'resize' (resize): {sentence}")


def generator():
    yield 1


async def async_generator():
    yield 1


@pytest.mark.parametrize("function", [generator, async_generator])
def test_a_generator_is_refused(function):
    with pytest.raises(TypeError, match=r"generator\): it yields, but a handler returns its result"):
        handler("pages")(function)


@pytest.mark.parametrize("thing", [Context, 3, None])
def test_what_is_no_function_is_refused(thing):
    with pytest.raises(TypeError, match="belongs above a function"):
        handler("thing")(thing)


def test_two_modules_that_claim_an_action_are_a_conflict_and_neither_serves(registry):
    first = claim(registry, "resize", "a")
    second = claim(registry, "resize", "b")
    claim(registry, "crop", "b")

    [conflict] = registry.conflicts()

    assert (conflict.name, conflict.claims) == ("resize", (first, second))
    assert registry.get("resize") is None
    assert [known.name for known in registry.handlers()] == ["crop"]


def test_two_functions_of_one_module_for_one_action_are_refused(registry):
    def other():
        pass

    handler("resize")(resize)

    with pytest.raises(ValueError, match=r"action 'resize' is claimed twice: by resize in .* and by .*other in"):
        handler("resize")(other)


def test_a_module_that_is_executed_again_replaces_its_claim(registry):
    claim(registry, "resize", "a")
    again = claim(registry, "resize", "a")

    assert registry.conflicts() == ()
    assert registry.get("resize") is again


def test_the_claims_of_a_failed_module_are_forgotten(registry):
    claim(registry, "resize", "failed")
    kept = claim(registry, "resize", "good")

    registry.keep(lambda claimed: claimed.module == "good")

    assert registry.conflicts() == ()
    assert registry.get("resize") is kept


def test_one_function_may_serve_two_actions(registry):
    handler("resize")(handler("shrink")(resize))

    assert [known.name for known in registry.handlers()] == ["resize", "shrink"]


def test_an_unknown_action_has_no_handler(registry):
    assert registry.get("unknown") is None


def test_limits_take_whatever_is_a_number_to_python(registry):
    class Three:
        def __index__(self):
            return 3

    @handler("numbers", timeout=Fraction(3, 2), cancel_grace=Decimal("0.5"), max_concurrent=Three(), nice=Three())
    def function(): ...

    limits = registry.get("numbers").limits
    assert (limits.timeout, limits.cancel_grace, limits.max_concurrent, limits.nice) == (1.5, 0.5, 3, 3)
