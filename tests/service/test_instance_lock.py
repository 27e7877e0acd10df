"""One worker id, one process of this host; what dead ones left is cleared away."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.service import instance_lock as instance
from supervisor.service.instance_lock import hold_instance
from supervisor.settings.resolution import ConfigError

HOLD = """
import sys
from pathlib import Path
from supervisor.service.instance_lock import hold_instance
with hold_instance(Path(sys.argv[1]), sys.argv[2]) as scratch:
    scratch.mkdir()
    (scratch / "file").write_text("half done")
    print(scratch, flush=True)
    sys.stdin.read()
"""
RACE = """
import sys
from pathlib import Path
from supervisor.service.instance_lock import hold_instance
for _ in range(300):
    with hold_instance(Path(sys.argv[1]), sys.argv[2]) as scratch:
        scratch.mkdir()
        scratch.rmdir()
"""


@contextmanager
def another_process(state: Path, worker_id: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process that holds `worker_id` until it is killed."""
    command = [sys.executable, "-c", HOLD, str(state), worker_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().decode().strip())
        finally:
            process.kill()


def test_a_second_process_with_the_same_worker_id_is_refused(state: Path) -> None:
    told = (
        "the worker id 'worker 1' is in use by another process on this host: give another --worker-id, or none, which"
    )
    with (
        another_process(state, "worker 1"),
        pytest.raises(ConfigError, match=f"^{told} makes a new one$"),
        hold_instance(state, "worker 1"),
    ):
        pass


def test_being_refused_takes_nothing_from_the_one_that_is_there(state: Path) -> None:
    with another_process(state, "w") as (process, scratch):
        for _ in range(2):
            with pytest.raises(ConfigError), hold_instance(state, "w"):
                pass

        assert (scratch / "file").read_text() == "half done"
        assert process.poll() is None


def test_processes_with_different_worker_ids_do_not_meet(state: Path) -> None:
    with another_process(state, "a") as (_, other), hold_instance(state, "b") as scratch:
        assert other != scratch
        assert (other / "file").exists()


def test_the_worker_id_is_free_again_once_its_process_was_killed(state: Path) -> None:
    with another_process(state, "w") as (process, old):
        process.kill()
        process.wait()

        with hold_instance(state, "w") as scratch:
            assert scratch == old
            assert not scratch.exists()  # what the dead one had half done is gone


def test_what_dead_instances_left_behind_is_removed(state: Path) -> None:
    with another_process(state, "dead") as (process, left):
        process.kill()
        process.wait()
        assert (left / "file").exists()

        with hold_instance(state, "alive"):
            assert not left.parent.exists()


def test_in_the_end_nothing_of_it_is_left(state: Path) -> None:
    with hold_instance(state, "w") as scratch:
        (scratch / "deep").mkdir(parents=True)

    assert list((state / "instances").iterdir()) == []


def test_its_folder_is_nobody_elses_to_read(state: Path) -> None:
    with hold_instance(state, "w") as scratch:
        assert scratch.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("worker_id", ["..", ".", "a/b", "ä", "../../x", " "])
def test_no_worker_id_leads_out_of_the_state_directory(state: Path, worker_id: str) -> None:
    state.mkdir()
    (state / "precious").write_text("not ours")

    with hold_instance(state, worker_id) as scratch:
        assert scratch.resolve().parent.parent == (state / "instances").resolve()

    assert (state / "precious").exists()
    assert (state / "instances").exists()


def test_processes_that_come_and_go_at_once_do_not_take_each_other_for_dead(state: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, str(state), name], stderr=subprocess.PIPE) for name in "abc"
    ]

    told = [racer.communicate(timeout=30)[1] for racer in racers]

    assert told == [b"", b"", b""]


def test_a_file_among_the_instances_bothers_nobody(state: Path) -> None:
    (state / "instances").mkdir(parents=True)
    (state / "instances" / "notes").write_text("")

    with hold_instance(state, "w"):
        pass


@pytest.mark.parametrize("obstacle", ["state", "state/instances", "state/instances/w"])
def test_a_state_directory_that_cannot_be_used_is_one_sentence(tmp_path: Path, obstacle: str) -> None:
    (tmp_path / obstacle).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / obstacle).write_text("a file where a folder belongs")

    with pytest.raises(ConfigError) as caught, hold_instance(tmp_path / "state", "w"):
        pass

    assert str(caught.value).startswith(f"the state directory {tmp_path / 'state'} cannot be used: ")
    assert "\n" not in str(caught.value)


def test_the_lock_is_not_inherited_by_programs_we_start(state: Path) -> None:
    with hold_instance(state, "w") as scratch:
        lock = scratch.parent / "lock"
        holders = [link for link in Path("/proc/self/fd").iterdir() if link.exists() and link.resolve() == lock]

        assert [os.get_inheritable(int(link.name)) for link in holders] == [False]


def test_where_what_is_left_cannot_be_removed_there_is_another_place(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise OSError(errno.ENAMETOOLONG, "File name too long")

    monkeypatch.setattr(instance, "remove_tree", refuse)

    with hold_instance(state, "one") as scratch:
        assert scratch.name.startswith("scratch-")
        assert not scratch.exists()


@pytest.mark.parametrize("place", ["instances", "instances/w", "instances/w/lock", "instances/dead"])
def test_a_link_that_a_job_left_in_the_state_directory_leads_nowhere(state: Path, tmp_path: Path, place: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "folder" / "below").mkdir(parents=True)
    (state / place).parent.mkdir(parents=True)
    (state / place).symlink_to(elsewhere / "lock" if place.endswith("lock") else elsewhere)

    if place == "instances/dead":  # that of another worker, which is no reason not to start
        with hold_instance(state, "w"):
            pass
    else:
        with pytest.raises(ConfigError, match="cannot be used: "), hold_instance(state, "w"):
            pass

    assert sorted(path.name for path in elsewhere.rglob("*")) == ["below", "folder"]


def test_a_state_directory_that_root_links_to_is_followed_and_its_scratch_has_no_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    with hold_instance(tmp_path / "link", "w") as scratch:
        assert scratch == tmp_path / "real" / "instances" / "w" / "scratch"


@pytest.mark.root("root makes a link of another user")
def test_a_link_of_another_user_is_no_state_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    os.lchown(tmp_path / "link", 65534, 65534)

    with pytest.raises(ConfigError, match="link is a link of uid 65534"), hold_instance(tmp_path / "link", "w"):
        pass
