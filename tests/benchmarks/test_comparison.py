"""The comparison with other workers: what it does to ours, and how it tells what it found."""

from __future__ import annotations

from pathlib import Path

from benchmarks.beacon import beacon
from benchmarks.comparison.__main__ import table
from benchmarks.comparison.mobius import Ours
from benchmarks.comparison.stopping import cancel_c, kill_the_worker


def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path) -> None:
    with beacon() as told, Ours(tmp_path) as session:
        found = kill_the_worker(session, told)

    assert list(found.values()) == [0.0, 0.0]


def test_a_cancelled_loop_in_c_frees_its_slot(tmp_path: Path) -> None:
    with beacon() as told, Ours(tmp_path) as session:
        freed_after, beside = cancel_c(session, told).values()

    assert isinstance(freed_after, float)
    assert beside == "is killed"


def test_answers_are_shown_as_their_median_or_as_all_that_was_seen() -> None:
    shown = table({"how long": {"one": [1.0, 2.0, 9.0], "other": ["never", 3.0]}, "whether": {"one": ["yes", "yes"]}})

    assert shown.splitlines()[2:] == ["| how long | 2 (1 – 9) | never, 3 |", "| whether | yes | – |"]
