"""Who may steer is judged when the connection is accepted, of the process that connected, and of no other one."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.control.access import UnixSocketPolicy
from supervisor.control.event_stream import StatusFeed
from supervisor.control.peer import SO_PEERPIDFD, Standing, identify
from supervisor.control.routes import ControlRoutes
from supervisor.control.server import receiving
from supervisor.stats import Stats
from tests.control_world import listening_at
from tests.status_world import Steered

REQUEST = b"POST /pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"


def has_peer_pidfd() -> bool:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            os.close(int.from_bytes(ours.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4), "little"))
        except OSError:
            return False
    return True


needs_peer_pidfd = pytest.mark.skipif(not has_peer_pidfd(), reason="this kernel has no SO_PEERPIDFD (Linux 6.5)")


def connected_by_a_process_that_ends(path: Path) -> socket.socket:
    """A connection to `path` that a process made, handed over, and did not live to use."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            with socket.socket(socket.AF_UNIX) as end:
                end.connect(os.fspath(path))
                socket.send_fds(theirs, [b"x"], [end.fileno()])
            os._exit(0)
        _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
        os.waitpid(pid, 0)
    return socket.socket(fileno=descriptor)


async def pause(connection: socket.socket) -> bytes:
    """Ask for a pause; return the first line of the answer."""
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, REQUEST)
    return (await loop.sock_recv(connection, 4096)).partition(b"\r\n")[0]


async def answer(path: Path, belongs_to_job: Callable[[int], bool], connect: Callable[[Path], socket.socket]) -> bytes:
    steered = Steered()
    with listening_at(path) as end:
        async with receiving(
            end, ControlRoutes(steered, Stats(), UnixSocketPolicy(belongs_to_job), StatusFeed(steered))
        ):
            with connect(path) as connection:
                return await pause(connection)


def directly(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.fspath(path))
    return connection


@needs_peer_pidfd
async def test_a_process_that_has_ended_steers_nothing_whoever_has_its_pid_now(tmp_path: Path) -> None:
    # The judge sees a stranger at this pid, as after the pid was used again.
    told = await answer(tmp_path / "socket", lambda _: False, connected_by_a_process_that_ends)

    assert told == b"HTTP/1.1 403 Forbidden"


async def test_an_operator_steers_and_a_job_does_not(tmp_path: Path) -> None:
    assert await answer(tmp_path / "socket", lambda _: False, directly) == b"HTTP/1.1 200 OK"
    assert await answer(tmp_path / "socket", lambda pid: pid == os.getpid(), directly) == b"HTTP/1.1 403 Forbidden"


async def test_the_judgement_is_that_of_the_time_when_the_connection_was_accepted(tmp_path: Path) -> None:
    steered = Steered()
    judged = asyncio.Event()
    verdicts = [False, True]

    def first_a_job_then_none(_: int) -> bool:
        judged.set()
        return verdicts.pop()

    with listening_at(tmp_path / "socket") as end:
        async with receiving(
            end, ControlRoutes(steered, Stats(), UnixSocketPolicy(first_a_job_then_none), StatusFeed(steered))
        ):
            with directly(tmp_path / "socket") as connection:
                await asyncio.wait_for(judged.wait(), 20)  # before it has asked for anything
                assert await pause(connection) == b"HTTP/1.1 403 Forbidden"


def test_a_kernel_without_pidfds_of_peers_goes_by_the_pid() -> None:
    class Old:
        def getsockopt(self, _: int, option: int, __: int) -> bytes:
            if option == SO_PEERPIDFD:
                raise OSError(92, "Protocol not available")
            return (7).to_bytes(4, "little") + os.geteuid().to_bytes(4, "little") + bytes(4)

        def getpeername(self) -> str:
            return ""

    assert identify(Old(), lambda pid: pid == 7).standing is Standing.JOB
    assert identify(Old(), lambda pid: pid != 7).standing is Standing.OPERATOR


def test_a_connection_that_is_gone_is_nobodys() -> None:
    class Gone:
        def getsockopt(self, *_: int) -> bytes:
            raise OSError(107, "Transport endpoint is not connected")

        def getpeername(self) -> str:
            raise OSError(107, "Transport endpoint is not connected")

    assert identify(Gone(), lambda _: False).standing is Standing.GONE
