"""Where the control socket is, and what takes its place."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from supervisor.control import socket_path as place
from supervisor.control.socket_path import (
    MAX_SOCKET_PATH_BYTES,
    NotRunning,
    connect,
    find_socket,
    runtime_dir,
    socket_path,
    too_long,
)
from supervisor.settings.resolution import ConfigError
from tests.control_world import listening_at


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name."""
    with TemporaryDirectory() as path:
        yield Path(path)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "/state/run"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/mobius-supervisor"),
        ({"XDG_RUNTIME_DIR": "relative"}, "/state/run"),
        ({"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/user/7"}, "/run/a"),
    ],
)
def test_the_folder_is_the_services_own_then_the_users_then_that_of_the_state(
    environment: dict[str, str], expected: str
) -> None:
    assert runtime_dir(environment, Path("/state")) == Path(expected)


def test_the_name_tells_the_worker_and_is_no_other_workers() -> None:
    names = ["render-07", "a/b", "a_b", "..", "x" * 200, "x" * 199, "ü"]

    paths = [socket_path(Path("/run"), name) for name in names]

    assert paths[0] == Path("/run/render-07.sock")
    assert len(set(paths)) == len(names)
    assert {path.parent for path in paths} == {Path("/run")}
    assert all(len(path.name) < 60 and path.suffix == ".sock" for path in paths)


def test_a_path_that_is_too_long_is_told_in_a_sentence() -> None:
    path = Path("/" + "x" * MAX_SOCKET_PATH_BYTES)

    with (
        pytest.raises(ConfigError, match="has 108 bytes, 107 are possible: give a shorter --socket"),
        listening_at(path),
    ):
        pass
    assert too_long(Path("/" + "x" * (MAX_SOCKET_PATH_BYTES - 1))) is None


def test_a_socket_is_for_its_user_alone_and_gone_in_the_end(short: Path) -> None:
    path = short / "run" / "a.sock"

    with listening_at(path) as end, end:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    assert list(path.parent.iterdir()) == []


def test_a_dead_processs_socket_is_replaced(short: Path) -> None:
    path = short / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))

    with listening_at(path) as end, end:
        assert find_socket({"RUNTIME_DIRECTORY": str(short)}, short, None) == path


def test_a_living_processs_socket_and_other_files_are_left_alone(short: Path) -> None:
    living, file = short / "a.sock", short / "b.sock"
    file.write_text("precious")

    with listening_at(living) as end, end:
        with pytest.raises(ConfigError, match="another process listens there"), listening_at(living):
            pass
        with pytest.raises(ConfigError, match="something else is there"), listening_at(file):
            pass
        assert find_socket({"RUNTIME_DIRECTORY": str(short)}, short, "a") == living
    assert file.read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(short: Path) -> None:
    (short / "file").touch()

    with pytest.raises(ConfigError, match="cannot be made: "), listening_at(short / "file" / "a.sock"):
        pass


def test_of_several_one_is_to_be_named(short: Path) -> None:
    environment = {"RUNTIME_DIRECTORY": str(short)}
    with ExitStack() as stack:
        for name in ("one", "two"):
            stack.enter_context(stack.enter_context(listening_at(socket_path(short, name))))

        with pytest.raises(
            ConfigError, match=rf"name one by --worker-id or --socket: {short}/one.sock, {short}/two.sock"
        ):
            find_socket(environment, short, None)
        assert find_socket(environment, short, "two") == short / "two.sock"
        with pytest.raises(NotRunning) as caught:
            find_socket(environment, short, "three")
    told = str(caught.value)
    assert told.startswith(f"no supervisor with the worker id 'three' runs here: in {short}, ")
    assert told.endswith(f" there is only {short}/one.sock, {short}/two.sock")


def test_a_command_of_a_service_finds_its_own_supervisor_beside_others_of_its_user(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "RUN", short)
    own = short / "mobius-supervisor-a"
    with ExitStack() as stack:
        for name in ("mobius-supervisor-a", "mobius-supervisor-b"):
            stack.enter_context(stack.enter_context(listening_at(socket_path(short / name, name))))

        found = find_socket({"RUNTIME_DIRECTORY": str(own)}, short / "s", None)

    assert found == own / "mobius-supervisor-a.sock"


def test_where_nobody_listens_is_told(short: Path) -> None:
    with pytest.raises(
        NotRunning, match=f"no supervisor runs here: nobody listens in {short}, {short}/s/run, /run/mobius"
    ):
        find_socket({"RUNTIME_DIRECTORY": str(short)}, short / "s", None)


def test_the_service_and_the_instances_of_the_template_are_found(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "RUN", short)
    with ExitStack() as stack:
        for name in ("mobius-supervisor-b", "mobius-supervisor"):
            path = socket_path(short / name, f"host-{name}")
            stack.enter_context(stack.enter_context(listening_at(path)))

            assert find_socket({}, short / "s", f"host-{name}") == path

        with pytest.raises(ConfigError, match=rf"{short}/mobius-supervisor/\S+, {short}/mobius-supervisor-b/\S+$"):
            find_socket({}, short / "s", None)


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from supervisor.control import socket_path as place

os.setgroups([])
os.setgid(65534)
os.setuid(65534)
place.RUN = Path(sys.argv[1])
try:
    environment = {"XDG_RUNTIME_DIR": sys.argv[1] + "/mobius-supervisor"}
    print(place.find_socket(environment, Path(sys.argv[2]), sys.argv[3] or None))
except (place.NotRunning, place.ConfigError) as error:
    print(type(error).__name__, error)
"""


@pytest.mark.root("only root can become another user")
def test_what_is_not_ours_does_not_stand_in_the_way_of_what_is(short: Path) -> None:
    def found(worker_id: str) -> str:
        """What an ordinary user finds, beside a service of somebody else."""
        command = [sys.executable, "-c", UNPRIVILEGED, str(short), str(short / "state"), worker_id]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    short.chmod(0o755)
    services, ours = short / "mobius-supervisor", short / "state" / "run"
    with ExitStack() as stack:
        for place_of_one in (services, ours):
            stack.enter_context(stack.enter_context(listening_at(socket_path(place_of_one, "one"))))
        for path in (ours.parent, ours, ours / "one.sock"):
            os.chown(path, 65534, 65534)

        assert found("one") == found("") == str(ours / "one.sock")
        assert found("two") == (
            f"NotRunning no supervisor with the worker id 'two' runs here: in "
            f"{services / place.NAME} (which you may not read), {ours}, {services} (which you may not read) "
            f"there is only {ours / 'one.sock'}"
        )
        (ours / "one.sock").unlink()
        services.chmod(0o755)
        assert found("one") == str(services / "one.sock")  # whoever calls there is told that it is not theirs


def test_a_link_to_a_socket_is_neither_found_nor_connected_to(short: Path) -> None:
    other, folder = short / "other.sock", short / "run"
    folder.mkdir()
    (folder / "a.sock").symlink_to(other)
    with listening_at(other) as end, end, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        with pytest.raises(NotRunning):
            find_socket({"RUNTIME_DIRECTORY": str(folder)}, short / "state", None)
        with pytest.raises(OSError, match="is a link, and must be a socket"):
            connect(client, folder / "a.sock")
        connect(client, other)


LAST_MOMENT = """
import os, sys
from pathlib import Path
from supervisor.control.listening_socket import SocketFile
folder, victim = map(Path, sys.argv[1:])

def swap(event, arguments):
    if event == "os.chmod":
        for name in os.listdir(folder):
            os.unlink(folder / name)
            os.symlink(victim, folder / name)

sys.addaudithook(swap)
with SocketFile(folder / "a.sock").bind():
    print(oct((folder / "a.sock").stat().st_mode & 0o777))
"""


def test_the_mode_of_a_socket_is_never_set_by_a_name(short: Path) -> None:
    (victim := short / "victim").touch(0o644)

    ended = subprocess.run(
        [sys.executable, "-c", LAST_MOMENT, short / "run", victim], capture_output=True, text=True, check=True, umask=0
    )

    assert ended.stdout == "0o600\n"
    assert victim.stat().st_mode & 0o777 == 0o644


def test_the_name_of_a_listening_socket_never_leads_through_something_else(short: Path) -> None:
    with listening_at(short / "a.sock") as end, end, contextlib.ExitStack() as stack:
        for _ in range(16):  # which take the numbers of what was closed
            stack.enter_context(open("/dev/null"))

        with pytest.raises(FileNotFoundError):
            Path(end.getsockname()).stat()
