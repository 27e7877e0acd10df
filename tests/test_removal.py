"""What a job has left is removed, whatever it is; also without the rights that only root has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.work.removal import remove

DEEP = 3000


def test_nothing_is_removed_without_a_word(tmp_path: Path) -> None:
    remove(tmp_path / "nothing")

    assert tmp_path.exists()


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "socket"])
def test_what_stands_in_the_place_of_a_folder_is_removed(tmp_path: Path, kind: str) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "kept").write_text("x")
    place = tmp_path / "place"
    match kind:
        case "file":
            place.write_text("x")
        case "link":
            place.symlink_to(elsewhere)
        case "dangling":
            place.symlink_to(tmp_path / "nowhere")
        case "socket":
            os.mkfifo(place)

    remove(place)

    assert not os.path.lexists(place)
    assert (elsewhere / "kept").exists()


def test_a_tree_of_any_depth_is_removed_and_its_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    top = folder = tmp_path / "top"
    top.mkdir()
    at = os.open(top, os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir("d" * 20, dir_fd=at)
        os.symlink(tmp_path, "link", dir_fd=at)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)

    remove(folder)

    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


LOCKED = """
import os, sys
from pathlib import Path
from supervisor.work.removal import remove
top = sys.argv[1]
for names in ("a", "a/b", "a/b/c"):
    os.mkdir(os.path.join(top, names))
    open(os.path.join(top, names, "file"), "w").close()
for names in ("a/b/c", "a/b", "a", ""):
    os.chmod(os.path.join(top, names), 0)
try:
    os.listdir(os.path.join(top, "a"))
except PermissionError:
    remove(Path(top))
    print("removed")
"""


def test_a_tree_that_nobody_may_read_or_write_is_removed_by_its_owner(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    command = [sys.executable, "-c", LOCKED, str(top)]
    if os.geteuid() == 0:  # who needs no permission
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]

    told = subprocess.run(command, capture_output=True, text=True, check=True)

    assert told.stdout == "removed\n"
    assert not top.exists()


REMOVED = """
import sys
from pathlib import Path
from supervisor.work.removal import remove
try:
    remove(Path(sys.argv[1]))
except PermissionError as error:
    print(error.strerror)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root makes folders of somebody else")
@pytest.mark.parametrize("is_empty", [True, False])
def test_what_cannot_be_removed_keeps_nothing_else(tmp_path: Path, is_empty: bool) -> None:
    top = tmp_path / "top"
    for number in range(50):
        (top / str(number) / "below").mkdir(parents=True)
        (top / f"file {number}").touch()
    others = top / "of somebody else"
    others.mkdir()
    if not is_empty:
        (others / "file").touch()
    os.chown(others, 65534, 65534)
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", REMOVED, str(top)]

    told = subprocess.run(command, capture_output=True, text=True, check=True)

    left = [] if is_empty else [others, others / "file"]
    assert sorted(top.rglob("*")) == left
    assert top.exists() == bool(left)
    assert told.stdout == ("" if is_empty else "Operation not permitted\n")
