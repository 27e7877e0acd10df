"""What a benchmark finds, and the shape of a benchmark: rounds that can take turns with those of other ones."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, between which others it lay, and what it has to reach; a peer's has nothing to reach."""

    what: str
    value: float
    unit: str
    low: float
    high: float
    at_least: float | None = None
    at_most: float | None = None

    @classmethod
    def of(
        cls,
        what: str,
        samples: Sequence[float],
        unit: str,
        *,
        share: float = 0.5,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> Figure:
        """The figure of some samples: their median, or another `share` of them."""
        value = quantile(samples, share)
        return cls(what, value, unit, min(samples), max(samples), at_least, at_most)

    @property
    def is_met(self) -> bool | None:
        """Whether it reaches its target; None when it has none."""
        if self.at_least is not None:
            return self.value >= self.at_least
        if self.at_most is not None:
            return self.value <= self.at_most
        return None

    @property
    def target(self) -> str:
        if self.at_least is not None:
            return f"≥ {shown(self.at_least)}"
        return f"≤ {shown(self.at_most)}" if self.at_most is not None else ""


class Subject(Protocol):
    """Something that is measured."""

    title: str
    rounds: int
    """How often, for figures worth keeping."""

    def measure(self) -> None:
        """One round; what it shows is kept until `figures` asks for it."""

    def figures(self) -> list[Figure]:
        """What all rounds so far have shown."""


def quantile(samples: Sequence[float], share: float) -> float:
    """The sample below which `share` of them lie."""
    if share == 0.5:  # of an even number, the middle
        return statistics.median(samples)
    ordered = sorted(samples)
    return ordered[math.ceil(share * len(ordered)) - 1]


def table(figures: Sequence[Figure]) -> str:
    """The figures in Markdown."""
    rows = [("", "median, or as said", "least – most", "to reach", "")]
    rows += [(figure.what, _valued(figure), _spread(figure), figure.target, _met(figure)) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def shown(number: float) -> str:
    """Three digits that count, or all before the point."""
    if abs(number) >= 100 or number == int(number):
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def _valued(figure: Figure) -> str:
    return f"{shown(figure.value)} {figure.unit}".rstrip()


def _spread(figure: Figure) -> str:
    return f"{shown(figure.low)} – {shown(figure.high)}"


def _met(figure: Figure) -> str:
    return {True: "met", False: "**missed**", None: ""}[figure.is_met]


def run_alone(subject: Subject) -> None:
    """What `python -m benchmarks.SUBJECT` does."""
    for _ in range(subject.rounds):
        subject.measure()
    print(table(subject.figures()))
