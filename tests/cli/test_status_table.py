from __future__ import annotations

from os import terminal_size

import msgspec
import pytest
from msgspec.structs import replace

from supervisor.cli.status_table import table_of
from supervisor.status import SpoolStatus, Status
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

    assert row(text, "claims") == "claims 1 open: no answer within 30 s; last answer 1.0s ago, last job 12.0s ago"
    assert row(text, "reload") == "reload failed: worse.py:1: NameError"
    assert row(text, "spool") == "spool 3 outcomes wait for the server, 2 KiB, the oldest 1m old"
    assert row(text, "disk") == "disk outcomes wait in memory only, until their lease is over: No space left on device"
    assert row(text, "stuck") == "stuck the claim of slot 1 does not end"
    assert row(text, "not served") == "handlers not served: bad.py:3: SyntaxError"
    assert row(text, "crashing") == "crashing handler resize"
    assert "ValueError: no" in row(text, "job_0")
    alone = table_of(status(spool=SpoolStatus(items=1, bytes=2048)))
    assert row(alone, "spool") == "spool 1 outcome waits for the server, 2 KiB"


def test_what_others_wrote_cannot_draw_on_the_terminal() -> None:
    hostile = "\x1b[31m" + "x" * 500
    slots = (replace(BUSY, job=replace(JOB, job_id=hostile[:20], last_line=hostile)),)

    text = table_of(status(slots=slots, quarantined=(hostile,)))

    assert "\x1b" not in text
    assert "…" in text


def crowded(jobs: int = 16) -> Status:
    """So many jobs, of whose heartbeats none is answered."""
    progress = msgspec.Raw(b'{"done":3,"total":8,"message":"of all the pages"}')
    slots = tuple(
        replace(BUSY, slot=number, job=replace(JOB, job_id=f"job_{number:016}", progress=progress))
        for number in range(1, jobs + 1)
    )
    return status(
        slots=(IDLE, *slots),
        standstill="no heartbeat is answered: the server, or the network before it, is away",
        claims=replace(STATUS.claims, reason="no answer within 30 s"),
        code=replace(STATUS.code, actions=tuple(f"action-{number}" for number in range(80))),
    )


@pytest.mark.parametrize("room", [terminal_size((40, 15)), terminal_size((80, 24)), terminal_size((200, 50))])
def test_what_is_wrong_is_above_the_jobs_and_all_of_it_fits(room: terminal_size) -> None:
    shown = table_of(crowded(), room)
    told = " ".join(shown.split())

    assert len(shown.splitlines()) <= room.lines
    assert max(map(len, shown.splitlines())) <= room.columns
    assert told.index("no heartbeat is answered: the server, or the network before it, is away") < told.index("HANDLER")
    assert told.index("1 open: no answer within 30 s; last answer 1.0s ago") < told.index("HANDLER")


def test_a_narrow_table_keeps_what_a_job_is_and_how_it_goes() -> None:
    def headings(columns: int) -> list[str]:
        return next(
            line for line in table_of(crowded(), terminal_size((columns, 50))).splitlines() if "TIME" in line
        ).split()

    assert headings(40) == ["HANDLER", "TIME", "PROGRESS", "LEASE"]
    assert headings(80) == ["SLOT", "STATE", "JOB", "HANDLER", "TIME", "PROGRESS", "LEASE"]
    assert headings(300)[-2:] == ["LAST", "LINE"]


def test_how_many_slots_are_not_shown_is_told_and_those_with_a_job_come_first() -> None:
    shown = table_of(crowded(), terminal_size((80, 15))).splitlines()
    rows = [line for line in shown if "resize" in line]

    assert shown[-1] == f"and {17 - len(rows)} more"
    assert len(rows) >= 5
    assert "idle" not in "".join(shown)


@pytest.mark.parametrize("columns", [1, 5, 10, 39])
@pytest.mark.parametrize("lines", [1, 3, 8])
def test_there_is_no_room_too_small(columns: int, lines: int) -> None:
    assert len(table_of(crowded(), terminal_size((columns, lines))).splitlines()) == lines


def test_what_a_server_calls_a_job_is_cut() -> None:
    endless = "x" * 100_000
    slots = (replace(BUSY, job=replace(JOB, job_id=endless, action=endless)),)

    text = table_of(status(slots=slots, recent=(replace(STATUS.recent[0], job_id=endless, action=endless),)))

    assert "x" * 199 + "…#2" in text
    assert max(map(len, text.splitlines())) < 1000
