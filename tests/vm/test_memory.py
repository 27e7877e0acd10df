"""The kernel bounds the memory of jobs under the shipped unit: seen in a virtual machine, where all controllers are."""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.vm.machine import Machine, missing

pytestmark = [
    pytest.mark.root("only root may show a virtual machine all files of this host"),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.timeout(300),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, testrun_uid: str) -> dict[str, Any]:
    """What the guest has told; there is one machine for all test processes of this run."""
    shared = tmp_path_factory.getbasetemp().parent / f"machine-{testrun_uid}"
    shared.mkdir(exist_ok=True)
    told = shared / "told"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            told.write_text(booted(shared / "machine"))
    if not told.read_text().startswith("{"):
        pytest.fail(f"the guest said:\n{told.read_text()}")
    found: dict[str, Any] = json.loads(told.read_text())
    return found


def booted(folder: Path) -> str:
    """What the guest prints; with the whole console when that is not what it should be."""
    folder.mkdir()
    machine = Machine(folder)
    printed = machine.run([f"/host{sys.executable}", "-m", "tests.vm.guest"], f"/host{ROOT}", timeout=240)
    return printed if printed.startswith("{") else f"> {printed}\n{machine.console}"


def test_a_job_over_its_limit_is_told_as_killed_by_the_kernel(seen: dict[str, Any]) -> None:
    told = seen["over"]

    assert told["error_type"] == "MemoryLimit"
    assert told["error_message"].startswith(
        "the job used more than its limit of 100 MiB (peak 100 MiB): killed by the kernel"
    )


def test_a_limit_that_is_kept_is_no_reason_for_quarantine(seen: dict[str, Any]) -> None:
    assert seen["over for the fourth time"]["error_type"] == "MemoryLimit"


def test_what_it_started_counts_and_dies_with_it(seen: dict[str, Any]) -> None:
    told = seen["over in a grandchild"]

    assert told["error_type"] == "MemoryLimit"
    assert told["alive"] == []


def test_a_job_within_its_limit_is_left_alone_and_the_next_one_is_not_bound_by_it(seen: dict[str, Any]) -> None:
    assert seen["within"] == {"result": 60}
    assert seen["unbounded"] == {"result": 200}
    assert seen["after the bound"]["result"]["memory_max"] == "max"
    assert seen["after the bound"]["result"]["path"] == seen["first"]["result"]["path"]


def test_what_earlier_jobs_have_kept_does_not_count_against_the_next(seen: dict[str, Any]) -> None:
    assert seen["kept"] == {"result": 200}
    assert seen["after what was kept"] == {"result": 60}


def test_when_the_unit_runs_out_of_memory_that_is_told(seen: dict[str, Any]) -> None:
    told = seen["unit is full"]

    assert told["error_type"] == "OutOfMemory"
    assert told["error_message"].startswith("the host, or the unit of the supervisor, ran out of memory: the kernel")


def test_deaths_for_want_of_memory_are_counted_apart(seen: dict[str, Any]) -> None:
    exits, outcomes = seen["exits"], seen["outcomes"]

    assert (exits["oom"], exits["crash"]) == (6, 0)  # four over their limit, one in a grandchild, one with the unit
    assert (outcomes["memory"], outcomes.get("crashed", 0), outcomes.get("failed", 0)) == (6, 0, 0)


def test_a_job_that_forks_without_end_is_bounded(seen: dict[str, Any]) -> None:
    assert 50 < seen["forks"]["result"] < 100  # half of the unit's TasksMax


def are_of_the_living(groups: list[str], last: str) -> bool:
    """Whether there are no groups but the supervisor's, that of the child of the last job, and the spare child's."""
    return {"supervisor", last.rpartition("/")[2]} <= set(groups) and len(groups) <= 3


def test_the_supervisor_lives_on_and_the_next_job_runs_in_a_group_of_its_own(seen: dict[str, Any]) -> None:
    first, last = seen["unit at first"], seen["unit at last"]

    assert (last["main"], last["restarts"]) == (first["main"], 0)
    assert last["main_is_in"] == f"{last['group']}/supervisor"
    assert len({seen[name]["result"]["path"] for name in ("first", "next", "last")}) == 3
    assert are_of_the_living(last["groups"], seen["last"]["result"]["path"])


def test_after_a_restart_it_is_as_before(seen: dict[str, Any]) -> None:
    unit = seen["unit restarted"]

    assert unit["restarts"] == 1
    assert unit["main_is_in"] == f"{unit['group']}/supervisor"
    assert are_of_the_living(unit["groups"], seen["restarted"]["result"]["path"])
    assert seen["result"] == "success"
