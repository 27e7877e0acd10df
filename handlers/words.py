"""Statistics of a text: structured parameters in, structured JSON out."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from supervisor import Context, handler

_SYLLABLES = ("mo", "bi", "us", "ra", "le", "tin", "ka", "so", "ver", "an")


@dataclass(frozen=True)
class Made:
    """Parameters of a random text; the same seed and size give the same text."""

    seed: int = 0
    words: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000


@dataclass(frozen=True)
class Count:
    """How often a word occurs."""

    word: str
    count: int


@dataclass(frozen=True)
class Statistics:
    """The result: a handler may return a dataclass, which becomes a JSON object."""

    words: int
    different: int
    top: list[Count]


@handler("word-statistics", timeout="10m", idempotent=True)
def word_statistics(
    context: Context, text: str | None = None, made: Made | None = None, top: Annotated[int, Meta(ge=0)] = 10
) -> Statistics:
    """Count the words of a given or random text, and return the most frequent ones."""
    lines = _made_lines(made or Made()) if text is None else text.splitlines()
    counts = Counter[str]()
    for line in context.track(lines):
        counts.update(re.findall(r"\w+", line.lower()))
    context.log.info("counted %d words", counts.total())
    return Statistics(counts.total(), len(counts), [Count(word, count) for word, count in counts.most_common(top)])


def _made_lines(made: Made, width: int = 1000) -> list[str]:
    dice = random.Random(made.seed)
    words = ["".join(dice.choices(_SYLLABLES, k=dice.choice((1, 1, 2, 3)))) for _ in range(made.words)]
    return [" ".join(words[start : start + width]) for start in range(0, made.words, width)]
