"""The figures of the benchmarks, and where they are written."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import put
from benchmarks.figures import Figure, quantile, table


def test_a_quantile_is_a_sample_below_which_so_many_lie() -> None:
    samples = [float(number) for number in range(200, 0, -1)]

    assert quantile(samples, 0.99) == 198.0
    assert quantile(samples, 1.0) == 200.0
    assert quantile([1.0, 4.0], 0.5) == 2.5


@pytest.mark.parametrize(
    ("targets", "is_met"),
    [
        ({"at_least": 2.0}, True),
        ({"at_least": 3.0}, False),
        ({"at_most": 2.0}, True),
        ({"at_most": 1.0}, False),
        ({}, None),
    ],
)
def test_a_figure_tells_whether_it_reaches_its_target(targets: dict[str, float], is_met: bool | None) -> None:
    assert Figure.of("speed", [1.0, 2.0, 9.0], "×", **targets).is_met is is_met


def test_what_is_missed_stands_out() -> None:
    rows = table([Figure.of("speed", [1.0, 2.0, 1234.5], "a second", at_least=4_500)]).splitlines()

    assert [cell.strip() for cell in rows[-1].split("|")[1:-1]] == [
        "speed",
        "2 a second",
        "1 – 1,234",
        "≥ 4,500",
        "**missed**",
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# Results\n\n## Soak\n\nfine\n", "# Results\n\n## Soak\n\nfine\n\n## Benchmarks\n\nnew\n"),
        (
            "# Results\n\n## Benchmarks\n\nold\n\n### Kill\n\n## Soak\n",
            "# Results\n\n## Benchmarks\n\nnew\n\n## Soak\n",
        ),
        ("# Results\n\n## Benchmarks\n\nold \\1\n", "# Results\n\n## Benchmarks\n\nnew\n"),
    ],
)
def test_the_section_takes_the_place_of_the_last_one(before: str, after: str) -> None:
    assert put("## Benchmarks\n\nnew\n", before) == after
