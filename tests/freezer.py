"""A process that outlives SIGKILL: in a frozen control group (version 1) a signal waits until the group is thawed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.harness import GENEROUS

FOLDER = Path("/sys/fs/cgroup/freezer")
needs_a_freezer = pytest.mark.skipif(not os.access(FOLDER, os.W_OK), reason="there is no freezer of version 1")


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Inside the block nothing ends the process; afterwards it goes on, or dies of what came meanwhile."""
    group = FOLDER / f"mobius-test-{pid}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "freezer.state").write_text("FROZEN")
        _until(group / "freezer.state", "FROZEN")
        yield
    finally:
        (group / "freezer.state").write_text("THAWED")
        _until(group / "freezer.state", "THAWED")
        with suppress(ProcessLookupError):  # killed meanwhile
            (FOLDER / "cgroup.procs").write_text(str(pid))
        _remove(group)


def _remove(group: Path) -> None:
    """Remove the group once the kernel has let go of a process that is on its way out: it is busy until then."""
    give_up_at = time.monotonic() + GENEROUS
    while True:
        try:
            return group.rmdir()
        except OSError:
            if time.monotonic() >= give_up_at:
                raise
        time.sleep(0.001)


def _until(file: Path, state: str) -> None:
    give_up_at = time.monotonic() + GENEROUS
    while file.read_text().strip() != state:
        assert time.monotonic() < give_up_at
        time.sleep(0.001)
