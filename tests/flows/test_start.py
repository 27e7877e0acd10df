"""A start that takes long: systemd is asked for time and told why, and the server's first word makes it serve."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from aiohttp import web

from supervisor.devserver.app import DevServer
from supervisor.devserver.call_log import Call
from supervisor.service import systemd_status as herald
from tests.harness import GENEROUS, supervising

SLOW = """
import time
from pathlib import Path
from supervisor import handler

while not Path("GO").exists():
    time.sleep(0.01)

@handler("slow")
def slow() -> None: ...
"""


class Manager:
    """Hears what systemd would hear."""

    def __init__(self, outlet: socket.socket) -> None:
        outlet.setblocking(False)
        self._outlet = outlet

    async def until(self, start: str) -> tuple[str, list[str]]:
        """The first notification that begins so, and all that came before it."""
        before: list[str] = []
        async with asyncio.timeout(GENEROUS):
            while True:
                text = (await asyncio.get_running_loop().sock_recv(self._outlet, 4096)).decode()
                if text.startswith(start):
                    return text, before
                before.append(text)


async def test_systemd_is_asked_for_time_while_handlers_are_imported_and_the_server_is_away(
    server: DevServer, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(herald, "START_EXTENSION", 0.06)
    monkeypatch.setattr(herald, "STATUS_INTERVAL", 0.05)
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "slow.py").write_text(SLOW.replace("GO", str(tmp_path / "go")))

    async def away(_: Call) -> web.Response:
        return web.Response(status=503)

    server.intercept = away
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outlet:
        outlet.bind(address)
        manager = Manager(outlet)
        async with supervising(server, state, {"NOTIFY_SOCKET": address}, handlers=str(tmp_path / "handlers")):
            while_importing = [await manager.until("EXTEND_TIMEOUT_USEC=60000") for _ in range(3)]
            (tmp_path / "go").touch()
            _, while_away = await manager.until("STATUS=2 children: 0 busy 2 idle, 0 spooled, no claim was answered: ")
            _, at_last = await manager.until("EXTEND_TIMEOUT_USEC=60000")
            server.intercept = None
            _, before_ready = await manager.until("READY=1")

    assert [before for _, before in while_importing] == [["STATUS=importing the handlers"], [], []]
    assert not [text for text in [*while_away, *at_last, *before_ready] if text.startswith("READY")]


async def test_a_server_that_asks_for_patience_has_answered(server: DevServer, state: Path, tmp_path: Path) -> None:
    async def busy(_: Call) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "600"})

    server.intercept = busy
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outlet:
        outlet.bind(address)
        manager = Manager(outlet)
        async with supervising(server, state, {"NOTIFY_SOCKET": address}):
            await manager.until("READY=1")
            status, _ = await manager.until("STATUS=")

    assert "the server asks for a pause" in status
