"""What an administrator installs, in a box: the program in /opt, the unit, the key, the settings."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from supervisor.cli.systemd_unit import NAME
from tests.box.box import LONGEST, Box, booted
from tests.harness import HANDLERS, KEY, PROJECT

ROOT = Path(__file__).parents[2]
OPT = "/opt/mobius-supervisor"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
UNITS = "/etc/systemd/system"
# For want of a real installation; an interpreter that is not in its place does not find its own library either.
PATHS = {"PYTHONPATH": f"{OPT}/code", "LD_LIBRARY_PATH": "/opt/python/lib"}
# What takes minutes there takes seconds here; no other line of the unit is changed.
IMPATIENT = "[Service]\nWatchdogSec=2\nRestartSec=100ms\n"


class Installation:
    """The service in a box, or the instance of the template that has this name."""

    def __init__(self, box: Box, instance: str = "") -> None:
        self._box = box
        self._unit = f"{NAME}@{instance}" if instance else NAME
        self._file = f"{UNITS}/{NAME}@.service" if instance else f"{UNITS}/{NAME}.service"
        self._settings = f"/etc/{NAME}/{instance}" if instance else f"/etc/{NAME}"
        box.write(self._file, (ROOT / "systemd" / Path(self._file).name).read_text())
        box.write(f"{self._settings}/api-key", f"{KEY}\n", "600")
        if not instance:
            self._install(box)

    def instance(self, name: str) -> Installation:
        """Another one beside this."""
        return Installation(self._box, name)

    def _install(self, box: Box) -> None:
        box.write(f"{OPT}/.venv/pyvenv.cfg", "home = /opt/python/bin\ninclude-system-site-packages = false\n")
        script = f"#!{OPT}/.venv/bin/python\nfrom supervisor.cli.main import main\nmain()\n"
        box.write(f"{OPT}/.venv/bin/{NAME}", script, "755")
        box.run("ln", "-s", f"/opt/python/bin/{PYTHON}", f"{OPT}/.venv/bin/python")

    def configure(self, url: str, drop_in: str = "", **settings: str) -> None:
        """Write the file of settings, and change the unit."""
        self._box.write(f"{self._file}.d/test.conf", IMPATIENT + drop_in)
        self._box.run("systemctl", "daemon-reload")
        given = {"MOBIUS_BASE_URL": url, "PROJECT": PROJECT, "MOBIUS_SUPERVISOR_WORKERS": "2", **settings}
        lines = [f"{name}={value}\n" for name, value in {**given, **PATHS}.items()]
        self._box.write(f"{self._settings}/env", "".join(lines))

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Write a file, which the service can read unless its mode forbids that."""
        self._box.write(path, text, mode)

    def run(self, *command: str, check: bool = True) -> str:
        """What a command prints for root in the box."""
        return self._box.run(*command, check=check)

    def command(self, *arguments: str) -> str:
        """What `mobius-supervisor …` prints for root, who has never run one of his own."""
        paths = [f"{name}={value}" for name, value in PATHS.items()]
        return self._box.run("env", "HOME=/nowhere", *paths, f"{OPT}/.venv/bin/{NAME}", *arguments)

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """`systemctl VERB …` of it."""
        try:
            return self._box.run("systemctl", *arguments, self._unit, check=check)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.journal()}") from None

    def shows(self, name: str) -> str:
        """One of the service's properties."""
        return self.systemctl("show", "--value", f"--property={name}")

    def until(self, name: str, *values: str) -> str:
        """Wait until a property has one of these values."""
        give_up_at = time.monotonic() + LONGEST
        while (value := self.shows(name)) not in values:
            assert time.monotonic() < give_up_at, f"{name} is {value}, not {values}\n{self.journal()}"
            time.sleep(0.05)
        return value

    def journal(self) -> str:
        return self._box.run("journalctl", "--no-pager", "--output=cat", f"--unit={self._unit}", check=False)

    def processes(self) -> list[str]:
        """The pids in the service's control group."""
        group = self._box.groups / "system.slice" / f"{NAME}.service"
        return [pid for procs in group.rglob("cgroup.procs") for pid in procs.read_text().split()]

    def forget(self) -> None:
        """End the service, and leave nothing of it to the next test."""
        self.systemctl("kill", "--signal=KILL", check=False)
        self.systemctl("stop", check=False)
        self.systemctl("reset-failed", check=False)
        self.systemctl("clean", "--what=state", check=False)


@contextmanager
def installed() -> Iterator[Installation]:
    """Boot a box with the program of this checkout in it."""
    with booted(_shown()) as box:
        yield Installation(box)


def _shown() -> Mapping[str, Path]:
    return {
        # This interpreter may live in somebody's home, which the unit hides.
        "/opt/python": Path(sys.base_prefix),
        f"{OPT}/.venv/lib/{PYTHON}/site-packages": Path(click.__file__).parents[1],
        f"{OPT}/code/supervisor": ROOT / "supervisor",
        f"{OPT}/handlers": HANDLERS,
    }
