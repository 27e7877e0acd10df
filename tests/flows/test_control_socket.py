"""The control socket is there again after a cleaner of old files has removed it."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest
import structlog.testing

from supervisor.control import control_socket
from supervisor.devserver.app import DevServer
from tests.harness import GENEROUS, supervising

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory with a path so short that there is room for a socket in it."""
    for variable in ("XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    with TemporaryDirectory() as folder:
        yield Path(folder)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(GENEROUS):
        while not condition():
            await asyncio.sleep(0.01)


async def health(path: Path) -> int:
    connector = aiohttp.UnixConnector(str(path))
    async with aiohttp.ClientSession(connector=connector) as client, client.get("http://localhost/healthz") as answer:
        return answer.status


def lines(logged: list[Any], event: str) -> list[Any]:
    return [line for line in logged if line["event"] == event]


async def test_a_socket_that_is_removed_is_made_again_but_never_in_the_place_of_others(
    server: DevServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "CHECK_INTERVAL", 0.02)
    path = state / "run" / "one.sock"
    with structlog.testing.capture_logs() as logged:
        async with supervising(server, state, worker_id="one"):
            await until(path.exists)
            path.unlink()
            await until(path.exists)
            without_its_file = await health(path)
            shutil.rmtree(path.parent)
            await until(path.exists)
            without_its_folder = await health(path)
            modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)]
            path.unlink()
            path.write_text("precious")
            await until(lambda: lines(logged, "control socket unavailable"))
            await asyncio.sleep(0.1)  # in which it looks again
            left_alone = path.read_text()
            path.unlink()
            await until(path.exists)
            at_last = await health(path)

    assert (without_its_file, without_its_folder, at_last) == (200, 200, 200)
    assert modes == [0o600, 0o700]
    assert left_alone == "precious"
    assert [line["path"] for line in lines(logged, "control socket restored")] == [str(path)] * 3
    assert len(lines(logged, "control socket unavailable")) == 1
    assert not path.exists()


@pytest.mark.root("only root can give a file to another user")
async def test_a_socket_of_another_user_in_its_place_is_left_alone(
    server: DevServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "CHECK_INTERVAL", 0.02)
    path = state / "run" / "one.sock"
    with structlog.testing.capture_logs() as logged:
        async with supervising(server, state, worker_id="one"):
            await until(path.exists)
            theirs = path.with_name("theirs")
            os.mknod(theirs, stat.S_IFSOCK | 0o600)
            os.chown(theirs, 65534, 65534)
            theirs.rename(path)
            await until(lambda: lines(logged, "control socket unavailable"))

    assert path.lstat().st_uid == 65534
    assert "a file of uid 65534 is there" in lines(logged, "control socket unavailable")[0]["reason"]
