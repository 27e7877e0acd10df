"""Control groups of version 2, where the tests may make any."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.process.cgroup_delegation import DELEGATE_ATTRIBUTE, NotDelegated, mount_point


@contextmanager
def a_group() -> Iterator[Path]:
    """A new control group; in the end it, and whatever is in it, is gone.  Skips the test where none can be made."""
    folder = tree() / f"mobius-test-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield folder
    finally:
        (folder / "cgroup.kill").write_text("1")
        for below in [*folder.rglob("*/"), folder]:
            below.rmdir()


def delegate(folder: Path) -> None:
    """Mark it as systemd does."""
    try:
        os.setxattr(folder, DELEGATE_ATTRIBUTE, b"1")
    except OSError as error:
        pytest.skip(f"control groups bear no marks here: {error}")


def tree() -> Path:
    try:
        return mount_point(Path("/proc/self/mountinfo").read_text())
    except NotDelegated as error:
        pytest.skip(str(error))


def inside(folder: Path, *command: str) -> list[str]:
    """The command that runs `command` in the group."""
    return ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh", *command]


def start_in(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    """Run a command in the group, once it is in there."""
    process = subprocess.Popen(
        [*inside(folder, "sh", "-c", 'echo && exec "$@"', "sh"), *command], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


def members(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
