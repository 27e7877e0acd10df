from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from supervisor.control.health import illness, unreadiness
from tests.status_world import BUSY, CLAIMS, IDLE, status


def test_a_program_that_serves_is_well_and_ready() -> None:
    assert illness(status()) is None
    assert unreadiness(status()) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"loop_lag": 3.0}, "the event loop was 3.0 s late"),
        (
            {"standstill": "the heartbeats of job job_1 are not sent"},
            "the heartbeats of job job_1 are not sent",
        ),
    ],
)
def test_what_stands_still_is_an_illness(changes: dict[str, Any], reason: str) -> None:
    assert illness(status(**changes)) == reason
    assert unreadiness(status(**changes)) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": "starting"}, "starting"),
        ({"state": "paused"}, "paused"),
        ({"state": "draining"}, "draining"),
        ({"slots": (replace(IDLE, state="starting"),)}, "no child is up"),
        (
            {"shortage": "3 without a child: no descriptors"},
            "slots cannot have a child: 3 without a child: no descriptors",
        ),
        ({"code": replace(status().code, outage="no module")}, "no child can be started: no module"),
        (
            {"claims": replace(CLAIMS, last_answer_age=75.0, reason="no answer within 30 s")},
            "no claim was answered for 1m15s: no answer within 30 s",
        ),
        (
            {"claims": replace(CLAIMS, last_answer_age=None, reason="503 Service Unavailable")},
            "no claim was answered yet: 503 Service Unavailable",
        ),
        (
            {"claims": replace(CLAIMS, blocked_by=("memory",), reason="short of memory: it has 1 MiB left")},
            "short of memory: it has 1 MiB left",
        ),
    ],
)
def test_why_no_job_can_be_taken_is_told(changes: dict[str, Any], reason: str) -> None:
    assert unreadiness(status(**changes)) == reason


def test_a_program_whose_children_are_all_busy_is_ready() -> None:
    assert unreadiness(status(slots=(BUSY,), claims=replace(CLAIMS, last_answer_age=9000.0, open_polls=0))) is None


def test_a_program_whose_handlers_run_all_they_may_is_ready() -> None:
    claims = replace(CLAIMS, last_answer_age=9000.0, open_polls=0, is_full=True)

    assert unreadiness(status(slots=(IDLE, BUSY), claims=claims)) is None
