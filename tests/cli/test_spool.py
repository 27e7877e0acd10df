"""Whose spool the commands look into."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.cli import spool as inventory
from supervisor.cli.spool import IN_HOME, other_spools, state_dir_of
from supervisor.job import Fence, Succeeded
from supervisor.reporting.spool import Spool
from supervisor.reporting.spool_format import Destination
from supervisor.settings.resolution import ConfigError

DESTINATION = Destination("http://nowhere", "acme")


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where systemd makes folders; those whose names end in "private" are not ours to read."""
    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(inventory, "LIB", tmp_path / "lib")
    monkeypatch.setattr(inventory, "is_inaccessible", lambda path: path.name.endswith("private"))
    return tmp_path / "lib"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "home" / ".local" / "state" / "mobius-supervisor"


def found(tmp_path: Path, **environment: str) -> Path:
    return state_dir_of(environment, tmp_path / "home")


def test_where_nobody_has_kept_anything_it_is_the_users_own(tmp_path: Path, services: Path, own: Path) -> None:
    assert found(tmp_path) == own


@pytest.mark.parametrize("name", ["mobius-supervisor", "mobius-supervisor-render"])
def test_where_only_the_service_has_a_state_it_is_that(tmp_path: Path, services: Path, name: str) -> None:
    (services / name).mkdir()

    assert found(tmp_path) == services / name


def test_what_the_environment_names_is_not_searched_for(tmp_path: Path, services: Path, own: Path) -> None:
    (services / "mobius-supervisor").mkdir()

    assert found(tmp_path, STATE_DIRECTORY="/var/lib/b:/c") == Path("/var/lib/b")


def keep_an_outcome(state: Path) -> None:
    entry = Spool(state).write(DESTINATION, Fence("worker", "job", 1), "echo", Succeeded(None))
    assert entry is not None
    entry.close()


@pytest.mark.parametrize("shelf", ["undeliverable", "damaged"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_part_of_the_spool_that_cannot_be_read_is_an_error_and_not_nothing(
    tmp_path: Path, shelf: str, kind: str
) -> None:
    keep_an_outcome(tmp_path)
    place = tmp_path / "spool" / shelf
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.write_text("no folder")

    with pytest.raises(ConfigError, match=f"the spool {place} cannot be read"):
        inventory.spool_in(tmp_path, {})


def test_of_several_it_is_the_one_that_keeps_outcomes(tmp_path: Path, services: Path, own: Path) -> None:
    own.mkdir(parents=True)
    (services / "mobius-supervisor").mkdir()
    assert found(tmp_path) == own

    keep_an_outcome(services / "mobius-supervisor")

    assert found(tmp_path) == services / "mobius-supervisor"


def test_of_several_that_keep_outcomes_one_is_to_be_named(tmp_path: Path, services: Path, own: Path) -> None:
    for state in (own, services / "mobius-supervisor"):
        keep_an_outcome(state)
    (services / "mobius-supervisor-private").mkdir()

    with pytest.raises(ConfigError, match=f"name one by --state-dir: {own}, {services}/mobius-supervisor$"):
        found(tmp_path)


def test_one_that_may_not_be_read_is_named_and_does_not_stand_in_the_way(
    tmp_path: Path, services: Path, own: Path
) -> None:
    (services / "mobius-supervisor-private").mkdir()

    with pytest.raises(ConfigError, match=f"you may not read {services}/mobius-supervisor-private$"):
        found(tmp_path)
    own.mkdir(parents=True)
    assert found(tmp_path) == own


def test_an_empty_spool_names_the_others_that_keep_outcomes(tmp_path: Path, services: Path, own: Path) -> None:
    of_user, of_service = tmp_path / "ada" / IN_HOME, services / "mobius-supervisor-render"
    for state in (own, of_user, of_service):
        keep_an_outcome(state)
    (services / "mobius-supervisor").mkdir()
    (services / "mobius-supervisor-link").symlink_to(of_service)

    others = other_spools(own, [tmp_path / "home", tmp_path / "ada", tmp_path / "nobody"])

    assert others == [(of_service, 1), (of_user, 1)]


AS_ROOT = """
import os, sys
from pathlib import Path
from supervisor.cli.main import main
from supervisor.cli import spool as inventory

inventory.other_spools = lambda *_: []  # this machine may have some, which are looked at as their owners

def noted(event, arguments):
    if event in ("open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.chown", "os.chmod", "os.listdir"):
        if str(arguments[0]).endswith((".outcome", "/spool")) or arguments[0] == "spool":
            assert os.getresuid() == (65534,) * 3 or os.geteuid() == 65534, (event, arguments)
            assert os.getegid() == 65534 and os.getgroups() == [], (event, arguments)

sys.addaudithook(noted)
try:
    main(sys.argv[1:])
finally:
    print(os.getresuid(), os.getresgid(), os.environ.get("HOME") != "/root", file=sys.stderr)
"""


@pytest.mark.root("only root can become another user")
@pytest.mark.parametrize("command", [["ls"], ["show", "job"], ["drop", "job", "--yes"], ["replay"]])
def test_root_is_the_owner_of_the_state_directory_before_anything_in_it_is_opened(
    tmp_path: Path, command: list[str]
) -> None:
    state = tmp_path / "private" / "state"  # the owner cannot come there by its name, as with DynamicUser=
    keep_an_outcome(state)
    for path in (state, *state.rglob("*")):
        os.chown(path, 65534, 65534)
    (tmp_path / "private").chmod(0o700)
    key = tmp_path / "private" / "key"
    key.write_text("mbx_root")
    account = ["--api-key-file", key, "--base-url", "http://127.0.0.1:9", "--project", "acme"]
    account = account if command == ["replay"] else []

    ended = subprocess.run(
        [sys.executable, "-c", AS_ROOT, "spool", *command, "--state-dir", state, *account],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": "/root"},
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines()[-1] == "(65534, 65534, 65534) (65534, 65534, 65534) True"
