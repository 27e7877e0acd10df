"""A short soak: the long one (`make soak`) is the same with more of everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soak import MOST_GROWTH, Findings, growth
from benchmarks.soak_accounts import Accounts

ROOT = Path(__file__).parents[2]
FINE = Accounts(jobs=3, stuck=0, finished=2, reported=2, ended_by_server=0, killed=0, lost=())


def findings(**changes: object) -> Findings:
    tried = {"faults": {"hang": 1}, "mischief": {"child": 1}}
    fine = tried | {"seconds": 1.0, "exit_code": 0, "orphans": 0, "descriptors": 0, "growth": 0.0}
    return Findings(**{"accounts": FINE} | fine | changes)  # type: ignore[arg-type]


def test_a_short_soak_loses_no_result_and_leaves_nothing_behind() -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--seconds", "3", "--seed", "8"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "results lost                        0\n" in ended.stdout
    assert "faults injected                     0 " not in ended.stdout


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"orphans": 1}, "1 orphans"),
        ({"descriptors": 2}, "2 descriptors leaked"),
        ({"growth": MOST_GROWTH}, "the parent grew by 5.0 MiB"),
        ({"exit_code": 6}, "the supervisor ended with exit code 6"),
        ({"accounts": Accounts(3, 1, 2, 2, 0, 0, ())}, "1 jobs stuck"),
        ({"mischief": {}}, "nothing was tried: no fault, no process killed, or no result"),
        ({"accounts": Accounts(3, 0, 2, 1, 0, 0, ("j.1",))}, "1 results lost: j.1"),
    ],
)
def test_whatever_must_not_be_is_said(changes: dict[str, object], sentence: str) -> None:
    assert findings().wrong == []
    assert findings(**changes).wrong == [sentence]


def test_growth_is_the_rise_of_a_line_without_the_warm_up() -> None:
    flat_after_warm_up = [(float(n), 1000 if n > 20 else n) for n in range(100)]
    rising = [(float(n), 100 * n) for n in range(101)]

    assert growth(flat_after_warm_up) == 0.0
    assert growth(rising) == pytest.approx(75 * 100)
