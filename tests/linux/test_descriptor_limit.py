"""The parent raises its limit of open files, children keep the soft limit, and too many workers are rejected."""

from __future__ import annotations

import asyncio
import resource
import signal
from pathlib import Path

import pytest

from supervisor.devserver.app import DevServer
from supervisor.exit_code import ExitCode
from supervisor.linux import descriptor_limit
from supervisor.linux.syscalls import children_of
from tests.harness import GENEROUS, logged, program, zygote_of

NINE_DO_NOT_FIT = ("prlimit", "--nofile=64:106")


async def test_the_parent_has_the_hard_limit_and_children_the_soft_one(server: DevServer, tmp_path: Path) -> None:
    state = tmp_path / "state"

    async with program(server.url, state, NINE_DO_NOT_FIT, workers="8") as supervisor:
        await logged(state, "serving")
        zygote = zygote_of(supervisor.pid)
        async with asyncio.timeout(GENEROUS):
            while len(children_of(supervisor.pid)) < 9:
                await asyncio.sleep(0.01)
        limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in children_of(supervisor.pid)}
        of_parent = resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE)
        supervisor.send_signal(signal.SIGTTIN)
        await logged(state, "--workers 9 needs about 109 descriptors; the hard limit is 106")

    assert zygote in limits
    assert set(limits.values()) == {(64, 106)}
    assert of_parent == (106, 106)


async def test_more_workers_than_descriptors_are_rejected_at_the_start(server: DevServer, tmp_path: Path) -> None:
    state = tmp_path / "state"

    async with program(server.url, state, NINE_DO_NOT_FIT, workers="400") as supervisor:
        async with asyncio.timeout(GENEROUS):
            code = await supervisor.wait()

    assert code == ExitCode.USAGE
    assert "--workers 400 needs about 2,064 descriptors; the hard limit is 106" in (state / "log").read_text()
    assert "Traceback" not in (state / "log").read_text()


@pytest.mark.parametrize(("soft", "hard", "lowered"), [(64, 128, 64), (256, 128, 128), (-1, 128, 128), (64, -1, 64)])
def test_a_soft_limit_is_never_above_the_hard_one(soft: int, hard: int, lowered: int) -> None:
    assert descriptor_limit._bounded(soft, hard) == lowered
