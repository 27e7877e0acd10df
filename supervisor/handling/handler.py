"""What makes a function a handler, and the registry of all of them.  In the zygote and its children.

It owns which function answers to which action; it calls none of them (`child_main` does) and imports none
(`process.importing` does).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, Unpack

from supervisor.handling.binding import Binding
from supervisor.handling.stated import Stated, limits_of
from supervisor.limits import Limits

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
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

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
            if claim.module == handler.module and (claim.file, claim.line) != (handler.file, handler.line):
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

    def keep(self, is_wanted: Callable[[Handler], bool]) -> None:
        """Forget all other claims: those of modules that failed after they had made them."""
        for claims in self._claims.values():
            claims[:] = [claim for claim in claims if is_wanted(claim)]


registry = Registry()
"""The handlers of this process: the only mutable state at module level."""


def handler(name: str, **limits: Unpack[Stated]) -> Callable[[Function], Function]:
    """Make a function answer to the action `name`; it stays the plain function that it is.

    `timeout` bounds one attempt, `cancel_grace` is how long its cleanup may take once it was asked to stop: seconds,
    or text such as "500ms", "10m" or "1h30m".  `idempotent` says that two attempts may overlap without harm.
    `memory` bounds what the job and all that it starts may use: bytes, or text such as "512MiB".  `max_concurrent`
    is how many of these jobs run at once.  A child is replaced after `max_jobs_per_child` jobs, or when it keeps more
    than `max_memory_per_child`; with `isolation="fresh"` each job has a child of its own.  `nice` is added to the
    child's niceness, `threads` is how many threads numeric libraries use.  None leaves each to the settings.
    Raises `TypeError` or `ValueError`, one sentence that names the function.
    """
    if not isinstance(name, str):
        raise TypeError(f'@handler needs the name of an action, as in @handler("resize"), not {name!r}')

    def register(function: Function) -> Function:
        registry.register(_described(name, function, limits))
        return function

    return register


def _described(name: str, function: Callable[..., Any], limits: Stated) -> Handler:
    place = _place(function)
    try:
        _check(name, function)
        is_async = inspect.iscoroutinefunction(function)
        return Handler(name, function, limits_of(limits), Binding.of(function), *place, is_async=is_async)
    except (TypeError, ValueError) as error:
        raise type(error)(f"handler {name!r} ({function.__qualname__}): {error}") from error


def _place(function: Callable[..., Any]) -> tuple[str, str, int]:
    """Return module, file and line of a function, however often it is wrapped."""
    inner = inspect.unwrap(function)
    if not inspect.isfunction(inner):
        raise TypeError(f"@handler belongs above a function, not {function!r}")
    return function.__module__, inner.__code__.co_filename, inner.__code__.co_firstlineno


def _check(name: str, function: Callable[..., Any]) -> None:
    if not name or name != name.strip() or not name.isprintable():
        raise ValueError("the name of an action is printable text, not empty, without space around it")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("it yields, but a handler returns its result; use context.emit for what comes before")
