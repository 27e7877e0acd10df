"""How the sessions of children are weighed, also by a user whom the kernel lets do so ten times a second."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog.testing

from supervisor.process import session_weights
from supervisor.process.session_weights import SessionWeights
from tests.harness import GENEROUS

needs_autogroups = pytest.mark.skipif(
    not Path("/proc/self/autogroup").exists(), reason="the kernel does not group by session"
)
WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"] if os.geteuid() == 0 else []
"""The command that starts a program with no more rights to weigh sessions than an ordinary user has."""
WEIGHS = """
import asyncio, sys
from supervisor.process.session_weights import SessionWeights

async def weigh(pids):
    weights = SessionWeights()
    for pid in pids:
        weights.set(pid, 7)
    while weights.waiting:
        await asyncio.sleep(0.01)

asyncio.run(weigh([int(text) for text in sys.argv[1:]]))
"""


class Kernel:
    """Takes so many writes and refuses the others, until it is given more."""

    def __init__(self, accepts: int, refusal: OSError | None = None) -> None:
        self.accepts = accepts
        self.written: list[tuple[int, int]] = []
        self._refusal = refusal or BlockingIOError(errno.EAGAIN, "try again")

    def write(self, niceness: int, pid: int) -> None:
        if self.accepts <= 0:
            raise self._refusal
        self.accepts -= 1
        self.written.append((pid, niceness))


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(GENEROUS):
        while not reached():
            await asyncio.sleep(0.005)


@contextmanager
def sessions(count: int) -> Iterator[list[int]]:
    """Processes that each lead a session."""
    processes = [subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(count)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@needs_autogroups
def test_every_session_is_weighed_by_a_user_who_may_do_so_ten_times_a_second():
    with sessions(4) as pids:
        command = [*WITHOUT_RIGHTS, sys.executable, "-c", WEIGHS, *map(str, pids)]
        subprocess.run(command, check=True, timeout=50)
        weights = [Path(f"/proc/{pid}/autogroup").read_text().split()[-1] for pid in pids]

    assert weights == ["7"] * 4


async def test_a_refused_weight_is_written_later_and_those_of_children_that_must_end_first():
    kernel = Kernel(accepts=1)
    weights = SessionWeights(kernel.write)

    for pid in (1, 2, 3):
        weights.set(pid, 5)
    weights.set(1, 0)
    kernel.accepts = 9
    await until(lambda: weights.waiting == 0)

    assert kernel.written == [(1, 5), (1, 0), (2, 5), (3, 5)]


async def test_a_weight_that_a_session_has_is_not_written_again():
    kernel = Kernel(accepts=9)
    weights = SessionWeights(kernel.write)

    for niceness in (0, 5, 5, 0, 5):
        weights.set(1, niceness)

    assert kernel.written == [(1, 5), (1, 0), (1, 5)]


async def test_a_refused_weight_is_dropped_when_its_session_is_to_have_its_old_one_or_has_ended():
    kernel = Kernel(accepts=0)
    weights = SessionWeights(kernel.write)

    for pid in (1, 2):
        weights.set(pid, 5)
    weights.set(1, 0)
    weights.forget(2)

    assert weights.waiting == 0


async def test_a_weight_of_a_pid_that_is_used_again_is_written_again():
    kernel = Kernel(accepts=9)
    weights = SessionWeights(kernel.write)

    weights.set(1, 5)
    weights.forget(1)
    weights.set(1, 5)

    assert kernel.written == [(1, 5), (1, 5)]


async def test_weights_that_wait_too_long_are_logged_once(monkeypatch):
    monkeypatch.setattr(session_weights, "MAX_DELAY", 0.0)
    monkeypatch.setattr(session_weights, "RETRY_INTERVAL", 0.001)
    kernel = Kernel(accepts=0)
    weights = SessionWeights(kernel.write)

    with structlog.testing.capture_logs() as logged:
        weights.set(1, 5)
        await until(lambda: bool(logged))
        kernel.accepts = 9
        await until(lambda: weights.waiting == 0)
        kernel.accepts = 0
        weights.set(1, 6)
        weights.forget(1)

    reason = "the kernel accepts ten weights a second from users without CAP_SYS_ADMIN"
    assert logged == [
        {"event": "child session weights delayed", "log_level": "warning", "waiting": 1, "reason": reason}
    ]


async def test_a_weight_that_cannot_be_written_is_logged_once():
    kernel = Kernel(accepts=0, refusal=PermissionError(errno.EACCES, "Permission denied"))
    weights = SessionWeights(kernel.write)

    with structlog.testing.capture_logs() as logged:
        for pid in (1, 2):
            weights.set(pid, 5)

    assert logged == [
        {"event": "child session weight not set", "log_level": "warning", "pid": 1, "error": "Permission denied"}
    ]


@pytest.mark.parametrize("gone", [FileNotFoundError(errno.ENOENT, ""), ProcessLookupError(errno.ESRCH, "")])
async def test_a_session_that_is_gone_is_not_logged(gone):
    weights = SessionWeights(Kernel(accepts=0, refusal=gone).write)

    with structlog.testing.capture_logs() as logged:
        weights.set(1, 5)

    assert (logged, weights.waiting) == ([], 0)
