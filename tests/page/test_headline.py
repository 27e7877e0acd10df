from __future__ import annotations

from supervisor.page.headline import alerts
from supervisor.status import SpoolStatus
from tests.status_world import STATUS, status


def test_where_nothing_is_wrong_nothing_is_said() -> None:
    assert alerts(STATUS) == ""


def test_a_spool_that_cannot_be_used_is_told_with_the_reason() -> None:
    shown = alerts(status(spool=SpoolStatus(trouble="No space left on device")))

    assert "outcomes wait in memory only" in shown
    assert "No space left on device" in shown
