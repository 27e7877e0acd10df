"""The `@handler` decorator and the registry of all handlers.  Runs in the zygote and in children.

The registry maps actions to functions.  `child.child_main` calls the functions; `child.handler_import` imports the
modules.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any, TypeVar, Unpack

from supervisor.handler_api.binding import Binding
from supervisor.handler_api.options import HandlerOptions, limits_of
from supervisor.limits import Limits
from supervisor.text.value_repr import value_repr

MAX_NAME_CHARS = 200
"""Limit of an action's name, which is part of every log line of its jobs."""

_NO_NAME: Any = object()
"""Default of `@handler()`: Python's own message for a missing argument does not show what to write."""

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that runs the jobs of one action, with its limits and its place in the source."""

    name: str
    function: Callable[..., Any]
    limits: Limits
    parameters: Binding
    module: str
    file: str
    line: int
    is_async: bool
    """True if the function is a coroutine function."""

    @property
    def summary(self) -> str:
        """First line of the function's docstring; empty without one."""
        text = inspect.getdoc(self.function)
        return text.partition("\n")[0] if isinstance(text, str) else ""

    @property
    def place(self) -> tuple[str, int]:
        """File and line of the function."""
        return self.file, self.line

    def is_rival_of(self, other: Handler) -> bool:
        """True if one execution of a module defined both handlers, so that neither replaces the other.

        A module that is executed again compiles new code objects; functions defined in a loop share theirs.
        """
        if self.function is other.function:
            return False
        return self.place != other.place or _code_of(self.function) is _code_of(other.function)

    def __str__(self) -> str:
        return f"{self.function.__qualname__} in {self.file}, line {self.line}"


@dataclass(frozen=True, slots=True)
class Conflict:
    """An action that several modules claim.  The worker serves none of them."""

    name: str
    claims: tuple[Handler, ...]


class Registry:
    """All handlers by action, in the order of their registration."""

    def __init__(self) -> None:
        self._claims: dict[str, list[Handler]] = {}

    def register(self, handler: Handler) -> None:
        """Add a handler; raise `ValueError` if its module has another function for the same action.

        When a module is executed again, its new function replaces the old one.
        """
        claims = self._claims.setdefault(handler.name, [])
        for claim in claims:
            if claim.module == handler.module and claim.is_rival_of(handler):
                raise ValueError(f"action {handler.name!r} is claimed twice: by {claim} and by {handler}")
        claims[:] = [claim for claim in claims if claim.module != handler.module]
        claims.append(handler)

    def get(self, name: str) -> Handler | None:
        """Return the handler of this action; None when there is none or more than one."""
        claims = self._claims.get(name, [])
        return claims[0] if len(claims) == 1 else None

    def handlers(self) -> tuple[Handler, ...]:
        """Return the handlers without conflict, sorted by name."""
        return tuple(claims[0] for _, claims in sorted(self._claims.items()) if len(claims) == 1)

    def conflicts(self) -> tuple[Conflict, ...]:
        """Return the actions that several modules claim, sorted by name."""
        return tuple(Conflict(name, tuple(claims)) for name, claims in sorted(self._claims.items()) if len(claims) > 1)

    def keep(self, is_wanted: Callable[[Handler], bool]) -> list[Handler]:
        """Keep the wanted handlers; remove and return the others, as those of a module that failed later."""
        unwanted = [claim for claims in self._claims.values() for claim in claims if not is_wanted(claim)]
        for claims in self._claims.values():
            claims[:] = [claim for claim in claims if claim not in unwanted]
        return unwanted


registry = Registry()
"""The handlers of this process."""


def handler(name: str = _NO_NAME, **limits: Unpack[HandlerOptions]) -> Callable[[Function], Function]:
    """Register a function as the handler of the action `name`.  The function itself stays unchanged.

    Durations are seconds, or text such as "500ms", "10m" or "1h30m".  Sizes are bytes, or text such as "512MiB".
    An option that is None or missing takes its value from the settings.

    - `timeout`: maximum duration of one attempt.
    - `cancel_grace`: time for cleanup between a stop request and the kill.
    - `idempotent`: True if two attempts of a job may overlap without harm.
    - `memory`: maximum memory of the job and all processes that it starts.
    - `max_concurrent`: maximum number of jobs of this handler that run at once.
    - `max_jobs_per_child`: number of jobs after which the child process is replaced.
    - `max_memory_per_child`: memory after a job above which the child process is replaced.
    - `isolation`: "fresh" runs each job in a new child process; "shared" (the default) reuses a child.
    - `nice`: niceness added to that of the child, 0 to 19.
    - `threads`: number of threads for numeric libraries such as NumPy.

    Raises `TypeError` or `ValueError` with a message that names the function.
    """
    if name is _NO_NAME:
        raise TypeError('@handler needs the name of an action, as in @handler("resize")')
    if not isinstance(name, str):
        raise TypeError(f'@handler needs the name of an action, as in @handler("resize"), not {value_repr(name)}')
    plain = str.__str__(name)  # the parent receives plain text, also from an enum member or another subclass

    def register(function: Function) -> Function:
        registry.register(_described(plain, function, limits))
        return function

    return register


def _described(name: str, function: Callable[..., Any], limits: HandlerOptions) -> Handler:
    inner = _innermost(function)
    code, module = inner.__code__, _module_of(function, inner)
    try:
        _check(name, function)
        is_async = inspect.iscoroutinefunction(function)
        binding = Binding.of(function)
        return Handler(
            name,
            function,
            limits_of(limits),
            binding,
            module,
            code.co_filename,
            code.co_firstlineno,
            is_async=is_async,
        )
    except (TypeError, ValueError) as error:
        raise type(error)(f"handler {value_repr(name)} ({function.__qualname__}): {error}") from error


def _innermost(function: Callable[..., Any]) -> FunctionType:
    """Return the original function below all decorators that set `__wrapped__`."""
    inner = inspect.unwrap(function)
    if not callable(function) or not isinstance(inner, FunctionType):
        raise TypeError(f"@handler belongs above a function, not {value_repr(function)}")
    return inner


def _code_of(function: Callable[..., Any]) -> CodeType:
    return _innermost(function).__code__


def _module_of(function: Callable[..., Any], inner: FunctionType) -> str:
    """Return the name of the module being imported; some code sets `__module__` or `__name__` to another text."""
    spec = inner.__globals__.get("__spec__")
    names = (getattr(function, "__module__", None), getattr(spec, "name", None), inner.__module__)
    texts = [name for name in names if isinstance(name, str)]
    return next((name for name in texts if name in sys.modules), texts[0] if texts else "")


def _check(name: str, function: Callable[..., Any]) -> None:
    if not name or name != name.strip() or not name.isprintable():
        raise ValueError("the name of an action must be printable text, not empty, without space around it")
    if len(name) > MAX_NAME_CHARS:
        raise ValueError(f"the name of an action has at most {MAX_NAME_CHARS} characters, not {len(name)}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("it yields, but a handler returns its result; use context.emit for intermediate data")
