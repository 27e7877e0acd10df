from __future__ import annotations

import base64
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.job import Blob, Failed, Fence, Outcome, Succeeded
from supervisor.reporting import spool_format
from supervisor.reporting.spool import ABANDONED_AFTER, ENDING, UNFINISHED, Spool, SpoolEntry, SpoolFolder, file_name
from supervisor.reporting.spool_format import CorruptSpoolFile, Destination

HERE = Destination("https://api.example.com", "acme")
FENCE = Fence("box-7", "job-1", 2)
RESULT = Succeeded(base64.b64encode(b"forty-two"))


def kept(spool: Spool, outcome: Outcome = RESULT, fence: Fence = FENCE, destination: Destination = HERE) -> Path:
    """Put an outcome into the spool and leave it there."""
    entry = spool.write(destination, fence, "render", outcome)
    assert entry is not None
    entry.close()
    return entry.path


def taken(spool: Spool, path: Path) -> SpoolEntry:
    entry = spool.acquire(path)
    assert entry is not None
    return entry


def content(outcome: Outcome) -> bytes | None:
    """The result of a success, wherever it is held."""
    assert isinstance(outcome, Succeeded)
    if isinstance(outcome.result, Blob):
        return os.pread(outcome.result.descriptor, outcome.result.size + 1, 0)[: outcome.result.size]
    return outcome.result


@contextmanager
def blob(data: bytes) -> Iterator[Blob]:
    descriptor = os.memfd_create("result", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    yield Blob(descriptor, len(data))
    os.close(descriptor)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def spool(state: Path) -> Spool:
    return Spool(state)


@pytest.mark.parametrize("outcome", [RESULT, Succeeded(b""), Succeeded(None), Failed("ValueError", "ü\n\0 'x'")])
def test_an_outcome_comes_back_as_it_was(spool: Spool, outcome: Outcome) -> None:
    entry = taken(spool, kept(spool, outcome))

    if isinstance(outcome, Succeeded):
        assert content(entry.outcome) == outcome.result
    else:
        assert entry.outcome == outcome
    assert (entry.record.destination, entry.record.fence, entry.record.action) == (HERE, FENCE, "render")
    entry.close()


def test_a_big_result_comes_back_as_a_blob_of_the_file_itself(spool: Spool) -> None:
    data = os.urandom(3 * spool_format.CHUNK_BYTES + 17)

    with blob(data) as result:
        entry = taken(spool, kept(spool, Succeeded(result)))

    assert isinstance(entry.outcome, Succeeded)
    assert isinstance(entry.outcome.result, Blob)
    assert entry.outcome.result.descriptor == entry.descriptor
    assert content(entry.outcome) == data
    entry.close()


def test_the_note_says_when_it_was_written(state: Path) -> None:
    spool = Spool(state, now=lambda: 1234.5)

    entry = taken(spool, kept(spool))

    assert entry.record.written_at == 1234.5
    entry.close()


def test_nobody_else_may_read_it(spool: Spool) -> None:
    path = kept(spool)
    spool.move_to_undeliverable(taken(spool, path))

    modes = {each.stat().st_mode & 0o777 for each in (spool.folder, spool.folder / "undeliverable")}
    assert modes == {0o700}
    assert (spool.folder / "undeliverable" / path.name).stat().st_mode & 0o777 == 0o600


def test_a_settled_outcome_that_cannot_be_deleted_is_told_of_and_closed(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = taken(spool, kept(spool))
    monkeypatch.setattr(os, "unlink", _read_only)

    with structlog.testing.capture_logs() as logged:
        entry.remove()

    assert [line["error"] for line in logged] == ["Read-only file system"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(entry.descriptor)


def test_a_copy_is_kept_where_a_file_can_have_one_name_only(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = taken(spool, kept(spool))
    monkeypatch.setattr(os, "link", _read_only)

    assert spool.keep_copy(entry)
    entry.remove()

    [found] = spool.find(SpoolFolder.UNDELIVERABLE)
    assert found.path.stat().st_mode & 0o777 == 0o600
    assert names(found.path.parent) == [entry.path.name]
    assert content(taken(spool, found.path).outcome) == content(RESULT)


def test_a_copy_that_cannot_be_kept_is_not_said_to_be(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = taken(spool, kept(spool))
    monkeypatch.setattr(os, "link", _read_only)
    monkeypatch.setattr(os, "write", _read_only)

    assert not spool.keep_copy(entry)
    entry.close()


def _read_only(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def secret(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("the key")
    return tmp_path / "secret"


@pytest.mark.parametrize("is_one_disk", [True, False])
def test_a_copy_is_of_the_open_file_and_not_of_what_a_job_put_in_its_place(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_one_disk: bool
) -> None:
    if not is_one_disk:
        monkeypatch.setattr(os, "link", _read_only)
    entry = taken(spool, kept(spool))
    entry.path.unlink()
    entry.path.symlink_to(secret(tmp_path))

    assert spool.keep_copy(entry)

    [found] = spool.find(SpoolFolder.UNDELIVERABLE)
    assert content(taken(spool, found.path).outcome) == content(RESULT)
    entry.remove()  # the link is a job's, and stays
    assert entry.path.is_symlink()


@pytest.mark.parametrize("place", ["", "undeliverable", "damaged"])
def test_a_link_in_the_place_of_a_folder_is_refused(spool: Spool, tmp_path: Path, place: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = kept(spool)
    if place:
        (spool.folder / place).symlink_to(elsewhere)
    else:
        spool.folder.rename(elsewhere / "spool")
        spool.folder.symlink_to(elsewhere / "spool")

    with structlog.testing.capture_logs() as lines:
        match place:
            case "":
                assert spool.write(HERE, FENCE, "render", RESULT) is None
                assert spool.find(*SpoolFolder) == []
            case "undeliverable":
                entry = taken(spool, path)
                assert not spool.keep_copy(entry)
                spool.move_to_undeliverable(entry)
            case _:
                path.write_text("damaged")
                assert spool.acquire(path) is None

    assert "is a link, and must be a folder" in lines[-1]["error"]
    assert names(elsewhere) == ([] if place else ["spool"])


def test_a_later_outcome_of_the_same_attempt_takes_the_place_of_the_earlier(spool: Spool) -> None:
    first = spool.write(HERE, FENCE, "render", RESULT)
    path = kept(spool, Failed("Cancelled", "asked to"))
    assert first is not None
    first.remove()  # knows that the file is not its own any more

    entry = taken(spool, path)
    assert entry.outcome == Failed("Cancelled", "asked to")
    entry.close()


def test_what_is_removed_is_gone(spool: Spool) -> None:
    path = kept(spool)

    taken(spool, path).remove()

    assert names(spool.folder) == []
    assert spool.acquire(path) is None


def test_an_outcome_in_hands_is_not_taken_by_anybody_else(spool: Spool, state: Path) -> None:
    entry = spool.write(HERE, FENCE, "render", RESULT)
    assert entry is not None

    in_hands = [Spool(state).acquire(entry.path), spool.acquire(entry.path)]
    entry.close()
    free = taken(Spool(state), entry.path)

    assert in_hands == [None, None]
    free.close()


def test_only_outcomes_for_the_same_server_and_project_wait_for_it(spool: Spool) -> None:
    ours = kept(spool)
    kept(spool, destination=Destination("https://api.example.com", "other"))
    kept(spool, destination=Destination("http://localhost:8080", "acme"))

    assert spool.waiting(HERE) == [ours]
    assert len(spool.find(SpoolFolder.WAITING)) == 3


def test_the_oldest_comes_first(spool: Spool) -> None:
    paths = [kept(spool, fence=Fence("w", f"job-{number}", 1)) for number in range(3)]
    for age, path in enumerate([paths[1], paths[0], paths[2]]):
        os.utime(path, (1e9 - age, 1e9 - age))

    assert spool.waiting(HERE) == [paths[2], paths[0], paths[1]]


@pytest.mark.parametrize(
    "job_id", ["a/b", "..", "../../etc/passwd", ".", "ünï ☃", "x" * 300, "a\0b", "", "-rf", "a\nb"]
)
def test_a_file_stays_in_the_spool_whatever_the_job_is_called(spool: Spool, job_id: str) -> None:
    path = kept(spool, fence=Fence("box-7", job_id, 1))

    assert path.parent == spool.folder
    assert names(spool.folder) == [path.name]
    entry = taken(spool, path)
    assert entry.record.fence.job_id == job_id
    entry.close()


@given(st.sets(st.builds(Fence, st.text(max_size=5), st.text(max_size=60), st.integers(1, 3)), min_size=2))
def test_no_two_attempts_share_a_file(fences: set[Fence]) -> None:
    others = {file_name(Destination("https://api.example.com", "other"), fence) for fence in fences}

    assert len({file_name(HERE, fence) for fence in fences} | others) == 2 * len(fences)
    assert all("/" not in name and len(name) < 255 for name in others)


def test_damage_at_any_byte_is_noticed(spool: Spool) -> None:
    path = kept(spool)
    whole = path.read_bytes()

    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :])
        with path.open("rb") as file, pytest.raises(CorruptSpoolFile):
            spool_format.verify(file.fileno())


def test_a_file_cut_at_any_place_is_noticed(spool: Spool) -> None:
    path = kept(spool)
    whole = path.read_bytes()

    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with path.open("rb") as file, pytest.raises(CorruptSpoolFile):
            spool_format.verify(file.fileno())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_whatever_a_file_holds_it_is_no_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data + spool_format.FORMAT_MARKER)

    with path.open("rb") as file, pytest.raises(CorruptSpoolFile):
        spool_format.verify(file.fileno())


def test_a_damaged_file_is_set_aside_with_one_line(spool: Spool) -> None:
    path = kept(spool)
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    with structlog.testing.capture_logs() as lines:
        found = [spool.acquire(each) for each in spool.waiting(HERE)]

    assert found == [None]
    assert [line["event"] for line in lines] == ["damaged spool file set aside"]
    assert names(spool.folder / "damaged") == [path.name]
    assert spool.waiting(HERE) == []


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_set_aside_too(spool: Spool, make: object) -> None:
    kept(spool)
    path = spool.folder / f"strange{ENDING}"
    make(path)  # type: ignore[operator]

    assert spool.acquire(path) is None
    assert names(spool.folder / "damaged") == [path.name]


def test_a_result_that_shrinks_while_it_is_copied_is_not_kept(spool: Spool) -> None:
    with blob(b"x" * 1000) as result:
        os.ftruncate(result.descriptor, 10)
        entry = spool.write(HERE, FENCE, "render", Succeeded(result))

    assert entry is None
    assert names(spool.folder) == []


def test_what_the_server_refuses_as_such_is_left_to_the_operator(spool: Spool) -> None:
    entry = taken(spool, kept(spool))

    spool.keep_copy(entry)
    substitute = spool.write(HERE, FENCE, "render", Failed("ResultRejected", "400"))
    entry.remove()

    assert substitute is not None
    substitute.close()
    (copy,) = spool.find(SpoolFolder.UNDELIVERABLE)
    (waiting,) = spool.find(SpoolFolder.WAITING)
    assert copy.record is not None
    assert copy.record.result_size == len(content(RESULT) or b"")
    assert waiting.record is not None
    assert waiting.record.failed == Failed("ResultRejected", "400")


def test_only_what_killed_writers_left_unfinished_is_swept(spool: Spool, state: Path) -> None:
    kept(spool)
    for name, age in (("old", 2 * ABANDONED_AFTER), ("young", 0.0)):
        path = spool.folder / f".{name}{UNFINISHED}"
        path.touch()
        os.utime(path, (path.stat().st_mtime - age,) * 2)

    Spool(state).sweep()

    assert len(names(spool.folder)) == 2
    assert f".young{UNFINISHED}" in names(spool.folder)


def test_a_spool_that_was_never_used_is_empty(spool: Spool) -> None:
    spool.sweep()

    assert spool.find(*SpoolFolder) == []
    assert spool.waiting(HERE) == []


def test_a_spool_that_cannot_be_written_is_one_warning(spool: Spool) -> None:
    spool.folder.parent.mkdir()
    spool.folder.touch()  # a file where the folder should be: root may write everywhere else

    with structlog.testing.capture_logs() as lines:
        refused = [spool.write(HERE, FENCE, "render", RESULT) for _ in range(3)]
        spool.folder.unlink()
        kept(spool)

    assert refused == [None, None, None]
    assert [line["log_level"] for line in lines] == ["warning", "info"]


# Each system call that keeping makes is a step; the program kills itself before the n-th of them, or after.
KILLED_AT_A_STEP = """
import fcntl, os, signal, sys
from pathlib import Path
from supervisor.job import Fence, Succeeded
from supervisor.reporting.spool import Spool
from supervisor.reporting.spool_format import Destination

step, after = int(sys.argv[2]), sys.argv[3] == "after"
steps = 0

def counted(function):
    def call(*args, **more):
        global steps
        if function.__name__ == "open" and not args[1] & os.O_CREAT:
            return function(*args, **more)  # of a folder
        steps += 1
        if steps == step and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = function(*args, **more)
        if steps == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    return call

spool = Spool(Path(sys.argv[1]))
for owner, name in ((os, "open"), (fcntl, "flock"), (os, "fsync"), (os, "rename")):
    setattr(owner, name, counted(getattr(owner, name)))
spool.write(Destination("https://api.example.com", "acme"), Fence("w", "job", 1), "a", Succeeded(b"QUJD" * 100_000))
print(steps)
"""
STEPS = 5


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_killed_at_any_step_it_leaves_a_whole_file_or_none(state: Path, step: int, moment: str) -> None:
    command = [sys.executable, "-c", KILLED_AT_A_STEP, str(state), str(step), moment]
    subprocess.run(command, check=False, capture_output=True, timeout=30)

    spool = Spool(state)
    entries = [spool.acquire(path) for path in spool.waiting(HERE)]
    for entry in entries:
        assert entry is not None
        assert content(entry.outcome) == b"QUJD" * 100_000
        entry.close()
    assert len(entries) == (step > 4 or (step, moment) == (4, "after"))
    assert spool.find(SpoolFolder.DAMAGED) == []


def test_these_are_all_the_steps(state: Path) -> None:
    command = [sys.executable, "-c", KILLED_AT_A_STEP, str(state), "0", "before"]

    ended = subprocess.run(command, check=True, capture_output=True, timeout=30)

    assert int(ended.stdout) == STEPS


ON_A_FULL_DISK = """
import sys
from pathlib import Path
import structlog
from supervisor.job import Fence, Succeeded
from supervisor.reporting.spool import Spool
from supervisor.reporting.spool_format import Destination

spool = Spool(Path("/mnt"))
here = Destination("https://api.example.com", "acme")
kept, troubles = [], []
with structlog.testing.capture_logs() as lines:
    for number, size in enumerate([1000, 2_000_000, 2_000_000, 1000]):
        kept.append(spool.write(here, Fence("w", "job", number), "a", Succeeded(size * b"A")))
        troubles.append(spool.measure(0.0).trouble)
assert [entry is not None for entry in kept] == [True, False, False, True], kept
assert [line["log_level"] for line in lines] == ["warning", "info"], lines
assert lines[0]["error"] == "No space left on device", lines
assert troubles == [None, lines[0]["error"], lines[0]["error"], None], troubles
assert len(list(Path("/mnt/spool").iterdir())) == 2
"""


def test_a_folder_that_cannot_be_read_is_told_until_it_can_be(state: Path) -> None:
    spool = Spool(state)
    state.mkdir()
    spool.folder.touch()

    before = spool.measure(0.0)
    spool.folder.unlink()

    assert before.trouble == "Not a directory"
    assert spool.measure(0.0).trouble is None


@pytest.mark.root("only root can mount")
def test_a_full_disk_is_one_warning_and_leaves_no_rest() -> None:
    mount = 'mount -t tmpfs -o size=1m tmpfs /mnt && exec "$@"'
    isolated = ["unshare", "-m", "sh", "-c", mount, "sh"]
    if subprocess.run([*isolated, "true"], check=False, capture_output=True).returncode:
        pytest.skip("a file system of one's own needs privileges")

    ended = subprocess.run(
        [*isolated, sys.executable, "-c", ON_A_FULL_DISK], check=False, capture_output=True, text=True, timeout=30
    )

    assert ended.returncode == 0, ended.stderr
