from __future__ import annotations

import pytest

from supervisor.page.figures import bar, clock, element, joined, length, lines, mood_of, share_of


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0:00"), (7.9, "0:07"), (754, "12:34"), (3723, "1:02:03"), (93784, "1 d 2:03:04"), (86400, "1 d 0:00:00")],
)
def test_a_running_time_reads_like_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.1, "0.0 s"),
        (0.25, "0.2 s"),
        (42.9, "42 s"),
        (60, "1 min"),
        (312, "5 min 12 s"),
        (3600, "1 h"),
        (3601, "1 h"),
        (7020, "1 h 57 min"),
        (273_900, "3 d 4 h"),
        (9e9, "104166 d 16 h"),
    ],
)
def test_an_age_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert length(seconds) == text


@pytest.mark.parametrize(
    ("part", "whole", "share"),
    [(1, 4, 0.25), (5, 4, 1), (-1, 4, 0), (1, None, None), (1, 0, None), (1, float("inf"), None)],
)
def test_a_share_is_of_something_and_at_most_all_of_it(part: float, whole: float | None, share: float | None) -> None:
    assert share_of(part, whole) == share


def test_a_limit_that_is_near_is_coloured() -> None:
    assert [mood_of(share) for share in (None, 0.5, 0.8, 0.95)] == ["", "", "warn", "bad"]


def test_a_bar_has_no_style_of_its_own_which_the_policy_would_forbid() -> None:
    assert bar(0.4) == '<svg class="bar" aria-hidden="true"><rect width="40.0%" height="100%"></rect></svg>'
    assert bar(None) == ""


def test_text_is_escaped_once_wherever_it_stands() -> None:
    inner = element("b", "<&>", title='"\x00\n')

    assert inner == '<b title="&quot;\\u0000\\n">&lt;&amp;&gt;</b>'
    assert element("p", inner, "<") == f"<p>{inner}&lt;</p>"
    assert joined("\u202e", inner) == f"\\u202e{inner}"


def test_the_lines_of_a_text_stay_lines() -> None:
    assert lines("a\n<b>\x1b") == "a\n&lt;b&gt;\\u001b"
