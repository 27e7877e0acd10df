"""Files that other users may change give a warning, and so do all folders above them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.devserver.app import DevServer
from supervisor.linux.permissions import warnings_of
from tests.harness import logged, program


def test_each_writable_folder_above_gives_one_warning(tmp_path: Path) -> None:
    (folder := tmp_path / "open" / "closed").mkdir(parents=True)
    for name in ("settings", "token"):
        (folder / name).touch(0o600)
    (tmp_path / "link").symlink_to(folder / "token")
    (tmp_path / "open").chmod(0o777)
    (folder / "token").chmod(0o602)

    found = warnings_of([folder / "settings", tmp_path / "link", folder / "nothing"])

    advice = "can be changed by every user of this machine: chmod o-w is safer"
    assert found == [f"{tmp_path}/open {advice}", f"{folder}/token {advice}"]


def test_a_sticky_folder_gives_no_warning(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(0o1777)

    assert warnings_of([tmp_path / "folder"]) == []


@pytest.mark.root("only root can make a file of another user")
def test_files_of_another_user_give_a_warning_to_root(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 65534, 65534)

    advice = "can be changed by uid 65534, and root relies on it: chown root is safer"
    assert warnings_of([tmp_path / "file"]) == [f"{tmp_path}/file {advice}"]


@pytest.mark.asyncio(loop_factories=["uvloop"])  # the program brings its own loop; ours does not matter
async def test_the_program_warns_at_its_start(server: DevServer, state: Path, tmp_path: Path) -> None:
    files = {"config": tmp_path / "a" / "settings", "listen_token_file": tmp_path / "b" / "token"}
    for path in files.values():
        path.parent.mkdir()
        path.parent.chmod(0o777)
        path.write_text("")
    files["listen_token_file"].write_text("a-token-of-the-tests")
    state.mkdir()
    state.chmod(0o777)
    given = {name: str(path) for name, path in files.items()}

    async with program(server.url, state, workers="1", listen="127.0.0.1:0", **given):
        await logged(state, '"serving"')

    log = (state / "log").read_text()
    for folder in (tmp_path / "a", tmp_path / "b", state):
        assert log.count(f'"{folder} can be changed by every user') == 1
    assert log.count('"handlers run as root"') == (os.geteuid() == 0)
