"""What makes a function a handler, and the registry of all of them.  In the zygote and its children.

It owns which function answers to which action; it calls none of them (`child_main` does) and imports none
(`process.importing` does).
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

MAX_NAME = 200
"""Characters of an action's name: more are shown nowhere, and the name is part of every log line of its jobs."""

_NO_NAME: Any = object()
"""Of `@handler()`; Python's own sentence for a missing argument does not show what to write."""

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that answers to an action, and where it was written."""

    name: str
    function: Callable[..., Any]
    limits: Limits
    parameters: Binding
    module: str
    file: str
    line: int
    is_async: bool
    """Whether the function is a coroutine function, to be run in a loop."""

    @property
    def summary(self) -> str:
        """The first line of the function's docstring, or nothing."""
        text = inspect.getdoc(self.function)
        return text.partition("\n")[0] if isinstance(text, str) else ""

    @property
    def place(self) -> tuple[str, int]:
        """File and line of the function."""
        return self.file, self.line

    def is_rival_of(self, other: Handler) -> bool:
        """Whether both come from one execution of a module, so that neither replaces the other.

        A module that is executed again compiles its functions anew; in a loop they share their code.
        """
        if self.function is other.function:
            return False
        return self.place != other.place or _code_of(self.function) is _code_of(other.function)

    def __str__(self) -> str:
        return f"{self.function.__qualname__} in {self.file}, line {self.line}"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Several modules claim one action; none of them is served."""

    name: str
    claims: tuple[Handler, ...]


class Registry:
    """All claims on actions, in the order in which they were made."""

    def __init__(self) -> None:
        self._claims: dict[str, list[Handler]] = {}

    def register(self, handler: Handler) -> None:
        """Remember a claim; raise `ValueError` if its own module has another function for the same action.

        A function registered anew from its old place, by a module that is executed again, replaces the old one.
        """
        claims = self._claims.setdefault(handler.name, [])
        for claim in claims:
            if claim.module == handler.module and claim.is_rival_of(handler):
                raise ValueError(f"action {handler.name!r} is claimed twice: by {claim} and by {handler}")
        claims[:] = [claim for claim in claims if claim.module != handler.module]
        claims.append(handler)

    def get(self, name: str) -> Handler | None:
        """Return the handler that serves this action; None when there is none or more than one."""
        claims = self._claims.get(name, [])
        return claims[0] if len(claims) == 1 else None

    def handlers(self) -> tuple[Handler, ...]:
        """Return the handlers that can be served, by name."""
        return tuple(claims[0] for _, claims in sorted(self._claims.items()) if len(claims) == 1)

    def conflicts(self) -> tuple[Conflict, ...]:
        """Return the actions that several modules claim, by name."""
        return tuple(Conflict(name, tuple(claims)) for name, claims in sorted(self._claims.items()) if len(claims) > 1)

    def keep(self, is_wanted: Callable[[Handler], bool]) -> list[Handler]:
        """Remove all other claims, such as those of modules that failed after they had made them; return these."""
        unwanted = [claim for claims in self._claims.values() for claim in claims if not is_wanted(claim)]
        for claims in self._claims.values():
            claims[:] = [claim for claim in claims if claim not in unwanted]
        return unwanted


registry = Registry()
"""The handlers of this process: the only mutable state at module level."""


def handler(name: str = _NO_NAME, **limits: Unpack[HandlerOptions]) -> Callable[[Function], Function]:
    """Make a function answer to the action `name`; it stays the plain function that it is.

    `timeout` bounds one attempt, `cancel_grace` is how long its cleanup may take once it was asked to stop: seconds,
    or text such as "500ms", "10m" or "1h30m".  `idempotent` says that two attempts may overlap without harm.
    `memory` bounds what the job and all that it starts may use: bytes, or text such as "512MiB".  `max_concurrent`
    is how many of these jobs run at once.  A child is replaced after `max_jobs_per_child` jobs, or when it keeps more
    than `max_memory_per_child`; with `isolation="fresh"` each job has a child of its own.  `nice` is added to the
    child's niceness, `threads` is how many threads numeric libraries use.  None leaves each to the settings.
    Raises `TypeError` or `ValueError`, one sentence that names the function.
    """
    if name is _NO_NAME:
        raise TypeError('@handler needs the name of an action, as in @handler("resize")')
    if not isinstance(name, str):
        raise TypeError(f'@handler needs the name of an action, as in @handler("resize"), not {value_repr(name)}')
    plain = str.__str__(name)  # what a member of an enum, or another subclass, is to the parent

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
    """The function as it was written, however often it is wrapped."""
    inner = inspect.unwrap(function)
    if not callable(function) or not isinstance(inner, FunctionType):
        raise TypeError(f"@handler belongs above a function, not {value_repr(function)}")
    return inner


def _code_of(function: Callable[..., Any]) -> CodeType:
    return _innermost(function).__code__


def _module_of(function: Callable[..., Any], inner: FunctionType) -> str:
    """The module that is being imported; some set `__module__` or `__name__` to what is no module."""
    spec = inner.__globals__.get("__spec__")
    names = (getattr(function, "__module__", None), getattr(spec, "name", None), inner.__module__)
    texts = [name for name in names if isinstance(name, str)]
    return next((name for name in texts if name in sys.modules), texts[0] if texts else "")


def _check(name: str, function: Callable[..., Any]) -> None:
    if not name or name != name.strip() or not name.isprintable():
        raise ValueError("the name of an action is printable text, not empty, without space around it")
    if len(name) > MAX_NAME:
        raise ValueError(f"the name of an action has {MAX_NAME} characters at most, not {len(name)}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("it yields, but a handler returns its result; use context.emit for what comes before")
