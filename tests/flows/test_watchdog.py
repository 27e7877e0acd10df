"""The watchdog is fed only while claims and heartbeats move, not merely because the loop turns."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
import structlog.testing
from aiohttp import ClientSession

from supervisor.devserver.app import DevServer
from supervisor.heart import Heart
from tests.harness import start_job, supervising


async def test_a_job_whose_heartbeats_stand_still_starves_the_watchdog(
    server: DevServer, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: Heart) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Heart, "keep_lease", never)
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outlet, structlog.testing.capture_logs() as logged:
        outlet.bind(address)
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        async with supervising(server, state, environment, listen="127.0.0.1:0"):
            run = await start_job(server, "sleeps", {"seconds": 3.0})
            async with asyncio.timeout(20):
                while not (said := [line for line in logged if line["event"] == "the watchdog is not fed"]):
                    await asyncio.sleep(0.05)
            (page,) = [line["page"] for line in logged if line["event"] == "listening"]
            async with ClientSession() as client, client.get(f"{page}healthz") as answer:
                health = answer.status, (await answer.json())["reason"]

        reason = f"the heartbeats of job {server.jobs(run)[0].id} are not sent"
        assert said[0]["reason"] == reason
        assert health == (503, reason)
