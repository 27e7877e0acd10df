from __future__ import annotations

from msgspec.structs import replace

from supervisor.page.slots import slots_table
from tests.status_world import BUSY, JOB


def test_a_job_that_runs_can_be_cancelled_and_its_stack_be_seen() -> None:
    shown = slots_table([BUSY])

    assert 'data-do="stack"' in shown
    assert 'data-do="cancel"' in shown
    assert "being reported" not in shown


def test_a_job_that_has_ended_says_so_and_offers_nothing() -> None:
    shown = slots_table([replace(BUSY, state="reporting", job=replace(JOB, stopping="its time was over"))])

    assert "has ended and is being reported" in shown
    assert "stopping" not in shown
    assert "data-do" not in shown
