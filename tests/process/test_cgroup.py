"""A control group: what is in it can be killed in one stroke, and it tells of what the kernel killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.linux.exit_status import OomKill
from supervisor.process import cgroup
from supervisor.process.cgroup import Cgroup
from supervisor.process.reaper import Reaper
from tests.cgroup_world import a_group, members, start_in

MIB = 2**20


@pytest.fixture
def group() -> Iterator[Cgroup]:
    with a_group() as parent:
        (parent / "child-1").mkdir()
        yield Cgroup(parent / "child-1", counts_memory=False)


@pytest.mark.root("only root can make control groups")
async def test_all_that_is_in_it_is_killed_in_one_stroke(group: Cgroup) -> None:
    reaper = Reaper()
    process = start_in(group.folder, "sh", "-c", "setsid sleep 600 & exec sleep 600")

    group.kill()
    process.wait()
    await group.remove()

    assert not group.folder.exists()
    await reaper.kill_orphans()


@pytest.mark.root("only root can make control groups")
async def test_it_is_removed_as_soon_as_its_last_process_has_left(group: Cgroup) -> None:
    process = start_in(group.folder, "sleep", "600")

    async with asyncio.TaskGroup() as tasks:
        removal = tasks.create_task(group.remove())
        await asyncio.sleep(0)  # it looks, and begins to wait
        assert not removal.done()
        process.kill()

    assert not group.folder.exists()
    process.wait()


@pytest.mark.root("only root can make control groups")
async def test_what_cannot_be_ended_keeps_its_group(group: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "CGROUP_EMPTY_TIMEOUT", 0.05)
    process = start_in(group.folder, "sleep", "600")

    await group.remove()

    assert members(group.folder) == [process.pid]
    process.kill()
    process.wait()


@pytest.mark.root("only root can make control groups")
async def test_groups_that_a_handler_made_in_it_are_removed_as_well(group: Cgroup) -> None:
    (group.folder / "workers" / "first").mkdir(parents=True)

    await group.remove()

    assert not group.folder.exists()


@pytest.mark.root("only root can make control groups")
async def test_to_end_what_is_gone_is_fine(group: Cgroup) -> None:
    await group.remove()

    group.kill()
    await group.remove()

    assert group.oom_kill() is None


@pytest.mark.parametrize(
    ("events", "limit", "told"),
    [
        ("oom 0\noom_kill 0\n", 100 * MIB, None),
        ("max 7\noom 1\noom_kill 2\noom_group_kill 1\n", 100 * MIB, OomKill(100 * MIB, 100 * MIB)),
        ("max 7\noom 1\noom_kill 2\noom_group_kill 1\n", 400 * MIB, OomKill(400 * MIB, 300 * MIB)),
        # Its own limit was not reached: the memory of a group above it, or of the host, was used up.
        ("max 0\noom 0\noom_kill 1\n", 400 * MIB, OomKill(None, 300 * MIB)),
        ("max 0\noom 0\noom_kill 1\n", None, OomKill(None, 300 * MIB)),
    ],
)
def test_why_the_kernel_killed_it(tmp_path: Path, events: str, limit: int | None, told: OomKill | None) -> None:
    group = Cgroup(tmp_path, counts_memory=True)
    if limit is not None:
        group.set_memory_limit(limit)
    (tmp_path / "memory.events").write_text(events)
    (tmp_path / "memory.peak").write_text(f"{300 * MIB}\n")

    assert group.oom_kill() == told


def test_a_kernel_that_keeps_no_peak(tmp_path: Path) -> None:
    group = Cgroup(tmp_path, counts_memory=True)
    (tmp_path / "memory.events").write_text("oom 0\noom_kill 1\n")

    assert group.oom_kill() == OomKill(None, None)


def test_without_the_controller_memory_cannot_be_bound(tmp_path: Path) -> None:
    assert not Cgroup(tmp_path, counts_memory=False).set_memory_limit(100 * MIB)
    assert not list(tmp_path.iterdir())


def test_a_bound_is_lifted_after_the_job(tmp_path: Path) -> None:
    group = Cgroup(tmp_path, counts_memory=True)

    assert group.set_memory_limit(100 * MIB)
    bound = [(tmp_path / name).read_text() for name in ("memory.max", "memory.swap.max")]
    group.clear_memory_limit()

    assert bound == [str(100 * MIB), "0"]
    assert [(tmp_path / name).read_text() for name in ("memory.max", "memory.swap.max")] == ["max", "max"]
