"""Generators of random numbers that handler modules hold: each child gives them a seed of its own.

Found in the zygote, once, after the imports; reseeded in each child.  Otherwise all children draw the same numbers.
Python reseeds the functions of `random` in a fork by itself.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Reseed = Callable[[], object]


def find(folders: Sequence[Path]) -> tuple[Reseed, ...]:
    """How to reseed each generator that is a global of a module in these folders, each once."""
    numpy: Any = sys.modules.get("numpy.random")
    found: dict[int, Reseed] = {}
    for module in _modules_in(folders):
        for value in list(vars(module).values()):
            if (reseed := _way_to(value, numpy)) is not None:
                found[id(value)] = reseed
    return tuple(found.values())


def reseed(found: Sequence[Reseed]) -> None:
    """Give each a seed of its own, from the system's randomness.  Called in a child that was just forked."""
    for each in found:
        each()
    # NumPy's own is not reseeded by a fork.  `numpy.random` is imported when it is first used, which takes longer than
    # all else that a child does.
    if (numpy := sys.modules.get("numpy.random")) is not None:
        numpy.seed()


def _modules_in(folders: Sequence[Path]) -> Iterator[Any]:
    roots = [folder.resolve() for folder in folders]
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and any(Path(file).is_relative_to(root) for root in roots):
            yield module


def _way_to(value: object, numpy: Any) -> Reseed | None:
    if isinstance(value, random.Random):
        return value.seed  # of `SystemRandom` it does nothing
    if numpy is None:
        return None
    if isinstance(value, numpy.RandomState):
        return lambda: numpy.RandomState.seed(value)
    if isinstance(value, numpy.Generator):
        return lambda: _renew(value.bit_generator)
    return (lambda: _renew(value)) if isinstance(value, numpy.BitGenerator) else None


def _renew(generator: Any) -> None:
    generator.state = type(generator)().state
