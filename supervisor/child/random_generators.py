"""Random number generators in globals of handler modules: each child reseeds them.

The zygote finds them once, after the imports.  Without a new seed all children would draw the same numbers.  Python
itself reseeds the functions of `random` after a fork.  Tested by tests/child/test_handler_authors.py.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Reseed = Callable[[], object]


def find(folders: Sequence[Path]) -> tuple[Reseed, ...]:
    """Return a function that reseeds it for each generator in a global of a module in these folders."""
    numpy: Any = sys.modules.get("numpy.random")
    found: dict[int, Reseed] = {}
    for module in _modules_in(folders):
        for value in list(vars(module).values()):
            if (reseed := _reseed_function(value, numpy)) is not None:
                found[id(value)] = reseed
    return tuple(found.values())


def reseed(found: Sequence[Reseed]) -> None:
    """Reseed each generator from the randomness of the system.  Called in a freshly forked child."""
    for each in found:
        each()
    # NumPy does not reseed its global generator after a fork.  `numpy` imports `numpy.random` on first use; importing
    # it here would take longer than the rest of a child's start.
    if (numpy := sys.modules.get("numpy.random")) is not None:
        numpy.seed()


def _modules_in(folders: Sequence[Path]) -> Iterator[Any]:
    roots = [folder.resolve() for folder in folders]
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and any(Path(file).is_relative_to(root) for root in roots):
            yield module


def _reseed_function(value: object, numpy: Any) -> Reseed | None:
    if isinstance(value, random.Random):
        return value.seed  # has no effect on `SystemRandom`
    if numpy is None:
        return None
    if isinstance(value, numpy.RandomState):
        return lambda: numpy.RandomState.seed(value)
    if isinstance(value, numpy.Generator):
        return lambda: _renew(value.bit_generator)
    return (lambda: _renew(value)) if isinstance(value, numpy.BitGenerator) else None


def _renew(generator: Any) -> None:
    generator.state = type(generator)().state
