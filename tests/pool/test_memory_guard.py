"""How much memory must be left for one more job, and where it is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.pool.memory_guard import Headroom, MemoryGuard, read_headroom
from supervisor.settings.value_types import SHARE, Share

GIB = 1 << 30
A_TENTH = Share(part=0.1)


def room(available: float, stalled: float = 0.0) -> Headroom:
    return Headroom("the machine", round(available * GIB), 100 * GIB, stalled)


def test_there_is_room_for_a_job() -> None:
    assert MemoryGuard().judge([room(10)], A_TENTH) is None


def test_a_shortage_says_what_is_left_and_what_is_wanted() -> None:
    reason = MemoryGuard().judge([room(50), room(9)], A_TENTH)

    assert reason == "short of memory: the machine has 9 GiB left, wanted are 10 GiB"


def test_a_shortage_is_over_when_a_quarter_more_is_left() -> None:
    admission = MemoryGuard()

    said = [admission.judge([room(left)], A_TENTH) is None for left in (11, 9, 11, 12.4, 12.6, 11, 9.9)]

    assert said == [True, False, False, False, True, True, False]


def test_a_machine_that_stands_still_for_want_of_memory_is_short_of_it() -> None:
    admission = MemoryGuard()

    said = [admission.judge([room(50, stalled)], A_TENTH) is None for stalled in (0.19, 0.2, 0.11, 0.09)]

    assert said == [True, False, False, True]


def test_a_size_is_wanted_whatever_there_is_in_all() -> None:
    assert MemoryGuard().judge([room(1)], Share(size=2 * GIB)) is not None
    assert MemoryGuard().judge([room(3)], Share(size=2 * GIB)) is None


def test_nobody_cares_when_it_is_off() -> None:
    assert MemoryGuard().judge([room(0, stalled=1)], Share()) is None


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("5%", Share(part=0.05)),
        ("12.5 %", Share(part=0.125)),
        ("2GiB", Share(size=2 * GIB)),
        ("off", Share()),
        ("0", Share()),
    ],
)
def test_a_share_is_read(text: str, share: Share) -> None:
    assert SHARE.read(text) == share


@pytest.mark.parametrize("text", ["", "much", "100%", "-5%", "5%%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size such as '512MiB', a part below 100% such as '5%', or 'off'"):
        SHARE.read(text)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 400 kB\n")
    return folder


def test_the_machine_is_looked_at(proc: Path, tmp_path: Path) -> None:
    (proc / "pressure").mkdir()
    (proc / "pressure" / "memory").write_text("some avg10=9.00 avg60=0\nfull avg10=2.50 avg60=0.00 total=1\n")

    assert read_headroom(proc, tmp_path / "none") == [Headroom("the machine", 400 * 1024, 1000 * 1024, 0.025)]


def test_each_cgroup_around_us_that_has_a_limit_is_looked_at(proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "cgroup").write_text("0::/jobs/ours\n")
    ours = tmp_path / "cgroup" / "jobs" / "ours"
    ours.mkdir(parents=True)
    for folder, limit in ((ours, "max"), (ours.parent, "5000")):
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text("4500")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 300\n")

    assert read_headroom(proc, tmp_path / "cgroup")[1:] == [Headroom("the cgroup", 800, 5000)]


def test_the_first_version_of_cgroups_is_understood(proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "cgroup").write_text("4:cpuset,memory:/ours\n0::/\n")
    ours = tmp_path / "cgroup" / "memory" / "ours"
    ours.mkdir(parents=True)
    for folder, limit in ((ours, "5000"), (ours.parent, "9223372036854771712")):
        (folder / "memory.limit_in_bytes").write_text(limit)
        (folder / "memory.usage_in_bytes").write_text("4500")
        (folder / "memory.stat").write_text("total_inactive_file 300\n")

    assert read_headroom(proc, tmp_path / "cgroup")[1:] == [Headroom("the cgroup", 800, 5000)]


def test_where_nothing_tells_there_is_room(tmp_path: Path) -> None:
    assert read_headroom(tmp_path, tmp_path) == []


def test_this_machine_tells() -> None:
    first, *_ = read_headroom()

    assert 0 < first.available < first.total
