from __future__ import annotations

import msgspec
from msgspec.structs import replace

from supervisor.control.table import table_of
from supervisor.status import SpoolStatus
from tests.status_world import BUSY, IDLE, JOB, STATUS, status


def row(text: str, word: str) -> str:
    (found,) = [line for line in text.splitlines() if word in line]
    return " ".join(found.split())


def test_a_slot_shows_its_job() -> None:
    text = table_of(
        status(slots=(IDLE, replace(BUSY, job=replace(JOB, progress=msgspec.Raw(b'{"done":3,"total":8}')))))
    )

    assert row(text, "job_1") == (
        "2 12 busy 1 job_1#2 resize 12.0s of 1m 3/8 (38%) 11.5 s 1 MiB of 1 GiB 20.0s half of it"
    )


def test_a_slot_shows_that_its_job_has_ended_and_is_reported() -> None:
    text = table_of(status(slots=(replace(BUSY, state="reporting", job=replace(JOB, stopping="its time was over")),)))

    assert row(text, "job_1").startswith("2 12 reporting 1 job_1#2 resize 12.0s of 1m")
    assert row(text, "job_1").endswith("stopped: its time was over")


def test_progress_that_is_something_else_is_shown_as_it_is() -> None:
    for progress, shown in (
        (b'{"page":7}', '{"page":7}'),
        (b'{"done":7,"message":"x"}', "7 x"),
        (b'{"done":"a"}', '"a"'),
    ):
        text = table_of(status(slots=(replace(BUSY, job=replace(JOB, progress=msgspec.Raw(progress))),)))

        assert shown in row(text, "job_1")


def test_the_status_reads_the_same_after_its_journey_as_json() -> None:
    here = status(slots=(replace(BUSY, job=replace(JOB, progress=msgspec.Raw(b'{"done":3}'))),))

    there = msgspec.json.decode(msgspec.json.encode(here), type=type(STATUS))

    assert table_of(there) == table_of(here)


def test_what_has_gone_wrong_is_told() -> None:
    text = table_of(
        status(
            claims=replace(STATUS.claims, reason="no answer within 30 s"),
            code=replace(STATUS.code, problems=("bad.py:3: SyntaxError",), error="worse.py:1: NameError"),
            spool=SpoolStatus(items=3, bytes=2048, oldest_age=60.0, trouble="No space left on device"),
            quarantined=("handler resize",),
            standstill="the claim of slot 1 does not end",
        )
    )

    assert "no answer within 30 s" in row(text, "claims")
    assert "bad.py:3: SyntaxError" in text
    assert row(text, "reload") == "reload failed: worse.py:1: NameError"
    assert row(text, "spool") == "spool 3 outcomes wait for the server, 2 KiB, the oldest 1m old"
    assert row(text, "disk") == "disk outcomes wait in memory only, until their lease is over: No space left on device"
    assert row(text, "stuck") == "stuck the claim of slot 1 does not end"
    assert row(text, "refused") == "refused handler resize"
    assert "ValueError: no" in row(text, "job_0")


def test_what_others_wrote_cannot_draw_on_the_terminal() -> None:
    hostile = "\x1b[31m" + "x" * 500
    slots = (replace(BUSY, job=replace(JOB, job_id=hostile[:20], last_line=hostile)),)

    text = table_of(status(slots=slots, quarantined=(hostile,)))

    assert "\x1b" not in text
    assert "…" in text
