from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from supervisor.health import illness, unreadiness
from tests.status_world import BUSY, CLAIMS, IDLE, JOB, status


def test_a_program_that_serves_is_well_and_ready() -> None:
    assert illness(status()) is None
    assert unreadiness(status()) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"loop_lag": 3.0}, "the event loop was 3.0 s late"),
        (
            {"slots": (replace(BUSY, job=replace(JOB, beat_overdue=True)),)},
            "no heartbeat is sent for job_1",
        ),
        (
            {"claims": replace(CLAIMS, open_polls=0, last_call_age=90.0)},
            "no claim was made for 1m30s though a child is free",
        ),
    ],
)
def test_what_stands_still_is_an_illness(changes: dict[str, Any], reason: str) -> None:
    assert illness(status(**changes)) == reason
    assert unreadiness(status(**changes)) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"slots": (BUSY,), "claims": replace(CLAIMS, open_polls=0, last_call_age=9000.0)},
        {"claims": replace(CLAIMS, open_polls=0, last_call_age=90.0, reason="429 slow down")},
        {"claims": replace(CLAIMS, open_polls=0, last_call_age=90.0), "state": "paused"},
        {"claims": replace(CLAIMS, last_call_age=None, last_answer_age=None)},
    ],
    ids=["all are busy", "the server asked for it", "paused", "just started"],
)
def test_not_to_claim_is_no_illness_when_there_is_a_reason(changes: dict[str, Any]) -> None:
    assert illness(status(**changes)) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": "starting"}, "starting"),
        ({"state": "paused"}, "paused"),
        ({"state": "draining"}, "draining"),
        ({"slots": (replace(IDLE, state="starting"),)}, "no child is up"),
        (
            {"claims": replace(CLAIMS, last_answer_age=75.0, reason="no answer within 30 s")},
            "no claim was answered for 1m15s: no answer within 30 s",
        ),
    ],
)
def test_why_no_job_can_be_taken_is_told(changes: dict[str, Any], reason: str) -> None:
    assert unreadiness(status(**changes)) == reason


def test_a_program_whose_children_are_all_busy_is_ready() -> None:
    assert unreadiness(status(slots=(BUSY,), claims=replace(CLAIMS, last_answer_age=9000.0, open_polls=0))) is None
