"""A throw-away container with a systemd of its own, driven from outside.

It shares the network with the tests, so that a development server in a test is the one that the service talks to.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from supervisor.linux.syscalls import children_of

INIT = Path(__file__).with_name("init.sh")
NAMESPACES = ("--pid", "--mount", "--uts", "--ipc", "--cgroup")
TOOLS = ("unshare", "nsenter", "setpriv", "bash")
LONGEST = 30.0
"""Seconds for anything in the box, on a machine that is busy with other things."""


class Unbootable(Exception):
    """This machine cannot run a box; the text says why."""


class Box:
    """A running systemd."""

    def __init__(self, leader: int, groups: Path) -> None:
        self._enter = ["nsenter", f"--target={leader}", *NAMESPACES, "--root", "--wd", "--"]
        self.groups = groups
        """The control group that is the root of the box's own."""

    def run(self, *command: str, text: str = "", check: bool = True) -> str:
        """Run a command as root in the box; return what it prints."""
        ended = subprocess.run(
            [*self._enter, *command], input=text, capture_output=True, text=True, check=False, timeout=LONGEST
        )
        if check and ended.returncode:
            raise AssertionError(f"{command} in the box: {ended.returncode}: {ended.stdout}{ended.stderr}")
        return ended.stdout.strip()

    def write(self, path: str, text: str, mode: str = "644") -> None:
        self.run("install", "-D", "-m", mode, "/dev/stdin", path, text=text)


@contextlib.contextmanager
def booted(shown: Mapping[str, Path]) -> Iterator[Box]:
    """Boot a box in which each key of `shown` is a read-only view of its value; raise `Unbootable` where it cannot."""
    groups = _new_group()
    root = Path(tempfile.mkdtemp(prefix="box-"))
    console = root.with_suffix(".console")
    views = [part for target, source in shown.items() for part in (str(source), target)]
    command = ["setpriv", "--pdeathsig=KILL", "unshare", "--fork", "--kill-child=KILL", "--propagation=private"]
    with console.open("wb") as output:
        process = subprocess.Popen(
            [*command, *NAMESPACES, "bash", str(INIT), str(root), *views],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # The group in which unshare is then becomes the root of the box's own.
            preexec_fn=lambda: (groups / "cgroup.procs").write_text("0"),
        )
    try:
        yield _up(process, groups, console)
    finally:
        process.kill()
        process.wait()
        _remove_group(groups)
        console.unlink()
        root.rmdir()


def _up(process: subprocess.Popen[bytes], groups: Path, console: Path) -> Box:
    """The box, once its systemd answers."""
    give_up_at = time.monotonic() + LONGEST
    while time.monotonic() < give_up_at:
        if process.poll() is not None:
            break
        for leader in children_of(process.pid):
            box = Box(leader, groups)
            if box.run("systemctl", "is-active", "box.target", check=False) == "active":
                return box
        time.sleep(0.05)
    raise Unbootable(console.read_text(errors="replace").strip() or "systemd did not come up")


def why_not() -> str | None:
    """Why no box can be booted on this machine; None when one should."""
    if os.geteuid() != 0:
        return "only root can boot a box"
    if not Path("/lib/systemd/systemd").exists():
        return "there is no systemd on this machine"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"there is no {missing[0]} on this machine"
    try:
        _remove_group(_new_group())
    except Unbootable as error:
        return str(error)
    tried = subprocess.run(["unshare", "--fork", *NAMESPACES, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() or None


def _new_group() -> Path:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    for _, place, kind, *_ in mounts:
        if kind == "cgroup2":
            group = Path(place) / f"box-{os.getpid()}"
            try:
                group.mkdir()
            except OSError as error:
                raise Unbootable(f"no control group can be made: {error}") from error
            return group
    raise Unbootable("there are no control groups of version 2")


def _remove_group(group: Path) -> None:
    (group / "cgroup.kill").write_text("1")
    give_up_at = time.monotonic() + LONGEST
    while "populated 1" in (group / "cgroup.events").read_text() and time.monotonic() < give_up_at:
        time.sleep(0.01)
    for folder, _, _ in os.walk(group, topdown=False):
        Path(folder).rmdir()
