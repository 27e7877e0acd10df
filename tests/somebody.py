"""Another user than the one who runs the tests: only root can become one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.harness import HANDLERS

SOMEBODY = 64123
AS_SOMEBODY = ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"]
UNPRIVILEGED = [
    *AS_SOMEBODY,
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),  # Python itself may be root's alone
]
"""The command that runs a program as a user whose processes are counted, as those of root are not."""


def give_to_somebody(state: Path) -> None:
    """Make the state directory one for a program of another user; skip the test where there can be none."""
    if subprocess.run([*UNPRIVILEGED, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("another user's processes are not permitted here")
    state.mkdir()
    os.chown(state, SOMEBODY, SOMEBODY)


@contextmanager
def handlers_for_somebody() -> Iterator[Path]:
    """Copy the handlers to where every user can read them, which is not so of every checkout.

    Processes with handlers do not have the rights of `UNPRIVILEGED`: skip where they cannot read Python's library.
    """
    if subprocess.run([*AS_SOMEBODY, "test", "-r", os.__file__], check=False, capture_output=True).returncode != 0:
        pytest.skip("another user cannot read this Python")
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "handlers"
        shutil.copytree(HANDLERS, copy, ignore=shutil.ignore_patterns("__pycache__"))
        Path(folder).chmod(0o755)
        yield copy
