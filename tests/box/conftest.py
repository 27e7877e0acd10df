"""The installation that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.box.box import why_not
from tests.box.installation import Installation, installed


@pytest.fixture(scope="module")
def box() -> Iterator[Installation]:
    if reason := why_not():
        pytest.skip(reason)
    with installed() as installation:
        yield installation
