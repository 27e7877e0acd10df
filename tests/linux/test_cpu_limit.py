"""The CPUs of a process are limited by its affinity and by the quotas of its control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from supervisor.linux.cpu_limit import Mount, mounts_in, quota_in

V1 = Path("/sys/fs/cgroup/cpu")


@pytest.mark.parametrize(
    ("text", "cpus"), [("50000 100000", 0.5), ("250000 100000", 2.5), ("max 100000", None), ("", None), ("1 0", None)]
)
def test_a_quota_of_version_2(tmp_path: Path, text: str, cpus: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)

    assert quota_in(tmp_path, is_v2=True) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("150000", 1.5), ("-1", None)])
def test_a_quota_of_version_1(tmp_path: Path, quota: str, cpus: float | None) -> None:
    (tmp_path / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")

    assert quota_in(tmp_path, is_v2=False) == cpus


def test_a_group_without_a_quota_has_none(tmp_path: Path) -> None:
    assert quota_in(tmp_path, is_v2=True) is None
    assert quota_in(tmp_path / "missing", is_v2=False) is None


def test_the_quotas_of_all_groups_above_apply() -> None:
    mount = Mount(Path("/cg"), PurePosixPath("/"), is_v2=True)

    assert list(mount.folders("/a/b")) == [Path("/cg/a/b"), Path("/cg/a"), Path("/cg")]
    assert list(mount.folders("/")) == [Path("/cg")]


def test_in_a_container_its_own_group_is_the_root() -> None:
    mount = Mount(Path("/cg"), PurePosixPath("/docker/1"), is_v2=True)

    assert list(mount.folders("/docker/1/a")) == [Path("/cg/a"), Path("/cg")]
    assert list(mount.folders("/elsewhere")) == [Path("/cg")]


def test_mounts_of_the_cpu_controller_are_found() -> None:
    text = (
        "30 23 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
        "33 23 0:30 /docker/1 /cpu\\040time rw - cgroup cgroup rw,cpu,cpuacct\n"
        "34 23 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    )

    assert list(mounts_in(text)) == [
        Mount(Path("/sys/fs/cgroup/unified"), PurePosixPath("/"), is_v2=True),
        Mount(Path("/cpu time"), PurePosixPath("/docker/1"), is_v2=False),
    ]


@pytest.fixture
def half_a_cpu() -> Iterator[Path]:
    """Make a group with a quota of half a CPU; return a group without a quota inside it."""
    group = V1 / f"mobius-test-{os.getpid()}"
    try:
        (group / "inner").mkdir(parents=True)
        (group / "cpu.cfs_quota_us").write_text("50000")
    except OSError as error:
        pytest.skip(f"no control group of version 1 can be made here: {error.strerror}")
    yield group / "inner"
    (group / "inner").rmdir()
    group.rmdir()


SHOWS = """
import os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as members:
    members.write("0")
from supervisor.cli import main as cli
print(cli._machine().cpus)
"""


@pytest.mark.root("only root can make control groups")
def test_the_default_number_of_workers_follows_the_cpu_quota(half_a_cpu: Path) -> None:
    command = [sys.executable, "-c", SHOWS, str(half_a_cpu)]

    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"
