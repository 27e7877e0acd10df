from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.page.slots import Progress, read_progress

VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)
SPECIAL = st.dictionaries(st.sampled_from(["done", "total", "percent", "message", "other"]), VALUES)


def read(payload: str) -> Progress:
    return read_progress(msgspec.Raw(payload.encode()))


@pytest.mark.parametrize(
    ("payload", "share", "count", "text"),
    [
        ('{"done": 3, "total": 12}', 0.25, "3 of 12", ""),
        ('{"done": 1530, "total": 2000, "message": "charts"}', 0.765, "1,530 of 2,000", "charts"),
        ('{"done": 7}', None, "7", ""),
        ('{"percent": 40, "frame": 7}', 0.4, "", "frame 7"),
        ('{"page": 3, "of": {"a": 1}}', None, "", 'page 3 · of {"a": 1}'),
        ('{"done": 3, "total": 0}', None, "3 of 0", ""),
        ('{"done": 5, "total": 4}', 1.0, "5 of 4", ""),
        ('{"percent": -3}', 0.0, "", ""),
        ('{"percent": "half"}', None, "", ""),
        ('"half way"', None, "", '"half way"'),
        ("", None, "", ""),
    ],
)
def test_what_is_known_is_drawn_and_the_rest_is_shown(payload: str, share: float | None, count: str, text: str) -> None:
    assert read(payload) == Progress(share, count, text)


@pytest.mark.parametrize(
    "payload",
    [
        "[" * 65536,
        '{"a":' * 16384,
        '{"done": 1e999, "total": 1}',
        '{"done": ' + "9" * 5000 + "}",
        "{" + " " * 65536 + "}",
    ],
)
def test_a_payload_that_is_none_for_a_page_does_no_harm(payload: str) -> None:
    assert read(payload).share is None


@given(SPECIAL.map(msgspec.json.encode) | st.binary(max_size=50))
def test_nothing_is_too_odd_to_be_shown(payload: bytes) -> None:
    progress = read_progress(msgspec.Raw(payload))

    assert progress.share is None or 0 <= progress.share <= 1
