"""The folder of a job is removed with any content, also without the rights of root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.linux.remove_tree import remove_tree

DEEP = 3000
needs_root = pytest.mark.root("only root mounts, in a namespace of its own")


def test_removing_a_missing_path_is_no_error(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")

    assert tmp_path.exists()


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "socket"])
def test_a_file_or_link_in_place_of_the_folder_is_removed(tmp_path: Path, kind: str) -> None:
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

    remove_tree(place)

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

    remove_tree(folder)

    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


LOCKED = """
import os, sys
from pathlib import Path
from supervisor.linux.remove_tree import remove_tree
top = sys.argv[1]
for names in ("a", "a/b", "a/b/c"):
    os.mkdir(os.path.join(top, names))
    open(os.path.join(top, names, "file"), "w").close()
for names in ("a/b/c", "a/b", "a", ""):
    os.chmod(os.path.join(top, names), 0)
try:
    os.listdir(os.path.join(top, "a"))
except PermissionError:
    remove_tree(Path(top))
    print("removed")
"""


def test_a_tree_without_permissions_is_removed_by_its_owner(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    command = [sys.executable, "-c", LOCKED, str(top)]
    if os.geteuid() == 0:  # who needs no permission
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == "removed\n"
    assert not top.exists()


REMOVED = """
import sys
from pathlib import Path
from supervisor.linux.remove_tree import remove_tree
try:
    remove_tree(Path(sys.argv[1]))
except PermissionError as error:
    print(error.strerror)
"""


@pytest.mark.root("only root can make folders of another user")
@pytest.mark.parametrize("is_empty", [True, False])
def test_an_entry_that_cannot_be_removed_does_not_keep_the_others(tmp_path: Path, is_empty: bool) -> None:
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

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    left = [] if is_empty else [others, others / "file"]
    assert sorted(top.rglob("*")) == left
    assert top.exists() == bool(left)
    assert done.stdout == ("" if is_empty else "Permission denied\n")


MOUNTED = """
import subprocess, sys
from pathlib import Path
from supervisor.linux.remove_tree import remove_tree
source, folder = map(Path, sys.argv[1:])
for place in (folder, folder / "top", folder / "deep" / "a" / "b"):
    place.mkdir(parents=True)
    if place != folder:
        (folder / "beside").touch()
    subprocess.run(["mount", "--bind", source, place], check=True)
    try:
        remove_tree(folder)
    except OSError as error:
        print(error.strerror)
    if (folder / "beside").exists():
        print("beside stays")
    place = subprocess.run(["findmnt", "-rno", "TARGET"], capture_output=True, text=True).stdout.splitlines()[-1]
    subprocess.run(["umount", place], check=True)
    remove_tree(folder)
print(folder.exists())
"""


@needs_root
def test_mounts_of_a_job_are_left_and_everything_else_is_removed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "below" / "file").write_text("precious")
    source.chmod(0o500)
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", MOUNTED]

    done = subprocess.run([*command, source, tmp_path / "place"], capture_output=True, text=True, check=True)

    assert done.stdout == "the mount there is left in place\n" * 3 + "False\n"
    assert (source / "below" / "file").read_text() == "precious"
    assert source.stat().st_mode & 0o777 == 0o500


SWAPPED = """
import os, sys
from pathlib import Path
from supervisor.linux.remove_tree import remove_tree
top, elsewhere = map(Path, sys.argv[1:])

def swap(event, arguments):
    if event == "os.chmod" and str(arguments[0]) != str(top) and not os.path.islink(top / "folder"):
        os.rename(top / "folder", top / "moved")
        os.symlink(elsewhere, top / "folder")

sys.addaudithook(swap)
try:
    remove_tree(top)
except OSError:
    pass
"""


def test_a_folder_replaced_by_a_link_at_the_last_moment_is_not_followed(tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir(mode=0o500)
    (tmp_path / "top" / "folder").mkdir(parents=True)
    (tmp_path / "top" / "folder").chmod(0o300)

    subprocess.run([sys.executable, "-c", SWAPPED, tmp_path / "top", elsewhere], check=True)

    assert elsewhere.stat().st_mode & 0o777 == 0o500
    assert elsewhere.exists()


def test_a_link_above_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real" / "job").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")

    with pytest.raises(OSError, match="is a link"):
        remove_tree(tmp_path / "link" / "job")

    assert (tmp_path / "real" / "job").exists()
