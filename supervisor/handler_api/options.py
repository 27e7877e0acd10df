"""The options of `@handler`, and their conversion to `Limits`.  Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, SupportsIndex, TypedDict

from supervisor.limits import Isolation, Limits
from supervisor.text.duration import format_duration, parse_duration
from supervisor.text.size import parse_size
from supervisor.text.value_repr import value_repr

MAX_DURATION = 3650 * 86400.0
"""Seconds.  A longer timeout is a mistake, and the timers of the event loop count milliseconds in 64 bits."""
MAX_COUNT = 2**31 - 1
"""Largest C `int`, for numbers of threads; no program has more jobs or children."""

Duration = str | float
"""Seconds, or text such as "500ms", "10m" or "1h30m"."""
Size = str | int
"""Bytes, or text such as "512MiB"."""


class HandlerOptions(TypedDict, total=False):
    """The options of `@handler`.  An option that is None or missing takes its value from the settings."""

    timeout: Duration | None
    """Maximum duration of one attempt."""
    cancel_grace: Duration | None
    """Time for cleanup between a stop request and the kill."""
    idempotent: bool
    """True if two attempts of a job may overlap without harm."""
    memory: Size | None
    """Maximum memory of the job and all processes that it starts."""
    max_concurrent: int | None
    """Maximum number of jobs of this handler that run at once."""
    max_jobs_per_child: int | None
    """Number of jobs after which the child process is replaced."""
    max_memory_per_child: Size | None
    """Memory after a job above which the child process is replaced."""
    isolation: Isolation
    """With "fresh", each job runs in a new child process."""
    nice: int | None
    """Niceness added to that of the child, 0 to 19."""
    threads: int | None
    """Number of threads for numeric libraries."""


def limits_of(options: HandlerOptions) -> Limits:
    """Convert the options; raise `TypeError` or `ValueError` for an unknown option or an invalid value."""
    return Limits(**{name: _reader(name)(name, value) for name, value in options.items()})


def _reader(name: str) -> Callable[[str, Any], Any]:
    if name not in _READERS:
        raise TypeError(f"there is no option {name!r}; the options are {', '.join(_READERS)}")
    return _READERS[name]


def _timeout(name: str, value: Duration | None) -> float | None:
    length = _length(name, value)
    if length == 0:
        raise ValueError(f"{name} must be more than zero; omit it for no limit")
    return length


def _length(name: str, value: Duration | None) -> float | None:
    if value is None:
        return None
    try:
        length = parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if length > MAX_DURATION:
        raise ValueError(f"{name} is at most {format_duration(MAX_DURATION)}, not {value_repr(value)}")
    return length


def _size(name: str, value: Size | None) -> int | None:
    if value is None:
        return None
    try:
        return parse_size(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _count(name: str, value: SupportsIndex | None) -> int | None:
    return None if value is None else _whole(name, value, "from 1 on", range(1, MAX_COUNT + 1))


def _niceness(name: str, value: SupportsIndex | None) -> int | None:
    return None if value is None else _whole(name, value, "from 0 to 19", range(20))


def _whole(name: str, value: SupportsIndex, span: str, allowed: range) -> int:
    """Return an integer, also one of NumPy, as a plain `int`.  Refuse `bool`, which is a mistake here."""
    try:
        number = None if isinstance(value, bool) else int(operator.index(value))
    except TypeError:
        number = None
    if number is None or number not in allowed:
        raise ValueError(f"{name} is a whole number {span}, not {value_repr(value)}")
    return number


def _isolation(name: str, value: Isolation) -> Isolation:
    for known in _ISOLATIONS:  # return the known constant: the parent cannot decode a subclass of str
        if isinstance(value, str) and value == known:
            return known
    raise ValueError(f"{name} is 'shared' or 'fresh', not {value_repr(value)}")


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, not {value_repr(value)}")
    return value


_ISOLATIONS: tuple[Isolation, ...] = ("shared", "fresh")
_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "timeout": _timeout,
    "cancel_grace": _length,
    "idempotent": _flag,
    "memory": _size,
    "max_concurrent": _count,
    "max_jobs_per_child": _count,
    "max_memory_per_child": _size,
    "isolation": _isolation,
    "nice": _niceness,
    "threads": _count,
}
