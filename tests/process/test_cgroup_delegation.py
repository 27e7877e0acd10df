"""The control groups of a supervisor that is given some to divide."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.devserver.app import DevServer
from supervisor.process.cgroup_delegation import NotDelegated, mount_point, own_path
from tests.cgroup_world import a_group, delegate, inside, members, start_in
from tests.harness import GENEROUS, event, finished_job, is_alive, program, reports, result_of, start_job

LOOK = "from supervisor.process.cgroup_delegation import Delegation; Delegation.found()"


@pytest.fixture
def unit() -> Iterator[Path]:
    with a_group() as folder:
        delegate(folder)
        yield folder


def test_the_own_path_is_that_of_version_2() -> None:
    assert own_path("4:memory:/user\n1:name=systemd:/\n0::/system.slice/mobius.service\n") == (
        "/system.slice/mobius.service"
    )
    with pytest.raises(NotDelegated):
        own_path("4:memory:/user\n")


def test_the_tree_is_where_it_is_mounted() -> None:
    line = "35 34 0:30 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"

    assert mount_point("34 22 0:29 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n" + line) == Path("/sys/fs/cgroup/unified")
    with pytest.raises(NotDelegated):
        mount_point("22 1 0:20 / / rw - ext4 /dev/vda rw\n")


def looked(*prefix: str) -> str:
    """What a process says that looks for its control group."""
    return subprocess.run([*prefix, sys.executable, "-c", LOOK], check=True, capture_output=True, text=True).stdout


@pytest.mark.root("only root can make control groups")
def test_a_group_that_is_not_delegated_is_left_alone() -> None:
    with a_group() as folder:
        assert "does not delegate its control group" in looked(*inside(folder))
        assert not (folder / "supervisor").exists()


@pytest.mark.root("only root can make control groups")
def test_a_group_with_others_in_it_is_left_alone(unit: Path) -> None:
    other = start_in(unit, "sleep", "600")

    assert "not alone in its unit" in looked(*inside(unit))
    assert not (unit / "supervisor").exists()
    other.kill()
    other.wait()


@pytest.mark.root("only root can make control groups")
async def test_each_child_and_all_that_it_starts_is_in_a_group_of_its_own(
    server: DevServer, state: Path, unit: Path
) -> None:
    async with program(server.url, state, inside(unit)) as process:
        job = await finished_job(server, await start_job(server, "control-group"))
        found = result_of(reports(server, job.id)[0])
        supervisors = members(unit / "supervisor")
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), GENEROUS)

    assert found["own"] == found["started"]
    assert Path(found["own"]).parent.name == unit.name
    assert Path(found["own"]).name.startswith("child-")
    assert process.pid in supervisors
    assert [folder.name for folder in unit.glob("*/")] == ["supervisor"]


@pytest.mark.root("only root can make control groups")
async def test_the_group_of_a_child_that_was_killed_is_gone_with_all_that_it_started(
    server: DevServer, state: Path, unit: Path
) -> None:
    async with program(server.url, state, inside(unit), workers="1", cancel_grace="100ms") as process:
        run = await start_job(server, "with-daemon")
        pids = (await event(server, run, "working"))["pids"]
        (group,) = (folder for folder in unit.glob("child-*") if pids[0] in members(folder))
        was_shared = set(pids) <= set(members(group))
        await server.cancel_run(run)
        await finished_job(server, run)
        is_left = group.exists()
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), GENEROUS)

    assert was_shared
    assert not is_left
    assert not any(map(is_alive, pids))


@pytest.mark.root("only root can make control groups")
async def test_what_a_dead_supervisor_has_left_is_ended_and_removed(server: DevServer, state: Path, unit: Path) -> None:
    for name in ("child-1", "child-7"):
        (unit / name).mkdir()
    orphan = start_in(unit / "child-7", "sleep", "600")

    async with program(server.url, state, inside(unit), workers="1") as process:
        await finished_job(server, await start_job(server, "nothing"))
        groups = {folder.name for folder in unit.glob("*/")}
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), GENEROUS)

    assert orphan.wait() == -signal.SIGKILL
    assert groups - {"child-2"} == {"supervisor", "child-1"}  # made anew, and perhaps the reserve's by now
