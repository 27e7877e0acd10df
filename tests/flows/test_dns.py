"""The server's name does not resolve, or resolves slowly: the log says so, jobs that run do not notice."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from supervisor.devserver.app import DevServer
from supervisor.exit_code import ExitCode
from tests.flows.test_hostile import logged, until
from tests.harness import GENEROUS, calls, finished_job, program, start_job, timed

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # the program runs in a process of its own

HOST = "jobs.example"
NAMESERVER = f"127.53.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"  # one for each process that runs tests


@dataclass(frozen=True)
class Names:
    """How the program under test finds the addresses of names, in a mount namespace of its own."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        (self.folder / "nsswitch.conf").write_text("hosts: files dns\n")
        self.give_up_after(2)
        self.forget()

    @property
    def command(self) -> list[str]:
        """The command that runs a program with these names; skips where that is not allowed."""
        if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0:
            pytest.skip("mounting is not permitted here")
        mounts = [f"mount --bind {file} /etc/{file.name}" for file in sorted(self.folder.iterdir())]
        return ["unshare", "-m", "sh", "-ec", f'{"; ".join(mounts)}; exec "$@"', "sh"]

    def give_up_after(self, seconds: int) -> None:
        """How long to wait for a nameserver that is silent."""
        (self.folder / "resolv.conf").write_text(f"nameserver {NAMESERVER}\noptions timeout:{seconds} attempts:1\n")

    def know(self) -> None:
        (self.folder / "hosts").write_text(f"127.0.0.1 {HOST}\n")

    def forget(self) -> None:
        (self.folder / "hosts").write_text("# no names\n")


@pytest.fixture
def names(tmp_path: Path) -> Names:
    return Names(tmp_path / "etc")


@contextmanager
def silent_nameserver() -> Iterator[socket.socket]:
    """One that hears questions and answers none; without it there is nobody at its address, which is told at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as nameserver:
        try:
            nameserver.bind((NAMESERVER, 53))
        except PermissionError:
            pytest.skip("a nameserver's port is not permitted here")
        yield nameserver


@pytest.mark.root("only root can mount")
async def test_a_server_is_found_as_soon_as_its_name_resolves(server: DevServer, state: Path, names: Names) -> None:
    url = server.url.replace("127.0.0.1", HOST)
    async with program(url, state, names.command, allow_http=""):
        await until(lambda: logged(state).count("claim failed") >= 3)
        names.know()
        job = await finished_job(server, await start_job(server, "echo"))

    failed = [line for line in logged(state).splitlines() if "claim failed" in line]
    assert all(f"the host name {HOST} could not be resolved (DNS)" in line for line in failed)
    assert job.status == "completed"
    assert "Traceback" not in logged(state)


@pytest.mark.root("only root can mount")
async def test_heartbeats_go_on_while_the_names_are_slow(server: DevServer, state: Path, names: Names) -> None:
    names.know()
    url = server.url.replace("127.0.0.1", HOST)
    with silent_nameserver():
        # With a lease of known length nothing is looked up: the report is the first call on its connection.
        async with program(url, state, names.command, workers="1", allow_http="", lease_ttl="5s"):
            run = await start_job(server, "sleeps", {"seconds": 1.0})
            await server.until(lambda: calls(server, "heartbeat") or None, timeout=GENEROUS)
            names.forget()  # before its first report, which has a connection of its own
            await until(lambda: logged(state).count("report not accepted") >= 2)
            names.know()
            job = await finished_job(server, run)

    beats = [call.received_at for call in calls(server, "heartbeat", job.id)]
    assert (job.status, job.attempt) == ("completed", 1)
    assert beats[-1] - beats[0] > 3.0


@pytest.mark.root("only root can mount")
async def test_sigterm_does_not_wait_for_a_slow_name(server: DevServer, state: Path, names: Names) -> None:
    names.give_up_after(15)
    with silent_nameserver() as nameserver:
        async with program(server.url.replace("127.0.0.1", HOST), state, names.command, allow_http="") as process:
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(nameserver, 512), GENEROUS)
            with timed() as taken:
                process.send_signal(signal.SIGTERM)
                code = await asyncio.wait_for(process.wait(), GENEROUS)

    assert (code, taken[0] < 10) == (ExitCode.DRAINED, True)
