"""Durations: what people write, and that writing and reading agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.text.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("2s", 2.0),
        ("2.5s", 2.5),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1d", 86400.0),
        ("1m0.5s", 60.5),
        (" 2s ", 2.0),
        ("1 h", 3600.0),
        ("1h 30m", 5400.0),
        ("1 h 30 m", 5400.0),
        ("500 ms", 0.5),
        ("90", 90.0),
        ("0", 0.0),
        (90, 90.0),
        (1.5, 1.5),
    ],
)
def test_a_duration_is_seconds_or_numbers_with_units(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        "ms",
        "10x",
        "-1s",
        "1s-",
        "30m1h",
        "1m1m",
        "1  h",
        "1 0s",
        "5 m s",
        "1 h 30",
        "1e3",
        "nan",
        "inf",
        "٣s",
        "9" * 400,
    ],
)
def test_anything_else_is_refused_with_one_sentence_that_shows_it(text):
    with pytest.raises(ValueError, match="is not a duration") as caught:
        parse_duration(text)

    assert repr(text)[:100] in str(caught.value)


@pytest.mark.parametrize("number", [-1, float("nan"), float("inf"), 10**400, True, None, b"2s"])
def test_what_is_no_length_of_time_is_refused(number):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(number)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0001, "0s"),
        (0.25, "250ms"),
        (1, "1s"),
        (2.5, "2.5s"),
        (59.9996, "1m"),
        (60, "1m"),
        (90, "1m30s"),
        (5400, "1h30m"),
        (86400, "1d"),
        (90061.001, "1d1h1m1.001s"),
    ],
)
def test_a_length_is_written_in_its_largest_units(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_what_is_no_length_is_not_written(seconds):
    with pytest.raises(ValueError, match="not a length of time"):
        format_duration(seconds)


@given(st.integers(min_value=0, max_value=10**12))
def test_what_is_written_is_read_back_to_the_millisecond(milliseconds):
    seconds = milliseconds / 1000

    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-6)
