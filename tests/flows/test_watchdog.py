"""The watchdog is fed only while claims and heartbeats move, not merely because the loop turns."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
import structlog.testing
from aiohttp import ClientSession

from supervisor.attempt.heartbeats import HeartbeatLoop
from supervisor.devserver.app import DevServer
from supervisor.devserver.call_log import Call
from supervisor.linux.syscalls import boottime
from supervisor.pool import claims as claiming
from supervisor.pool.pool import Pool
from supervisor.service import operator as helm
from supervisor.service import systemd_status as herald
from tests.harness import GENEROUS, calls, start_job, supervising


async def test_a_job_whose_heartbeats_stand_still_starves_the_watchdog(
    server: DevServer, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: HeartbeatLoop) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(HeartbeatLoop, "run", never)
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


async def test_what_stood_still_for_a_moment_is_fed_at_once(
    server: DevServer, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def stand_still_twice(*_: object) -> str | None:
        nonlocal looks
        looks += 1
        return "nobody claims" if looks in (2, 3) else None

    monkeypatch.setattr(Pool, "stall_reason", stand_still_twice)
    monkeypatch.setattr(herald, "WATCHDOG_RETRY_INTERVAL", 0.01)
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outlet, structlog.testing.capture_logs() as logged:
        outlet.bind(address)
        outlet.setblocking(False)
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}
        async with supervising(server, state, environment):
            fed_at = [await fed(outlet) for _ in range(2)]

    assert fed_at[1] - fed_at[0] < 2.9  # not when the look after the next is due
    assert [line["reason"] for line in logged if line["event"] == "the watchdog is not fed"] == ["nobody claims"]


async def fed(outlet: socket.socket) -> float:
    """When the watchdog is fed."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(GENEROUS):
        while await loop.sock_recv(outlet, 4096) != b"WATCHDOG=1":
            pass
    return loop.time()


async def test_a_claim_that_is_open_over_a_suspend_does_not_stand_still_and_one_that_hangs_does(
    server: DevServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_: Call) -> None:
        await asyncio.Event().wait()

    async def verdict(client: ClientSession) -> str:
        async with client.get("healthz") as answer:
            return await answer.text()

    monkeypatch.setattr(claiming, "CLAIM_TIMEOUT_MARGIN", 2.0)
    with structlog.testing.capture_logs() as logged:
        async with supervising(server, state, listen="127.0.0.1:0", wait_seconds="0", lease_ttl=None):
            await server.until(lambda: calls(server, "claim") or None)
            server.intercept = hang
            open_claims = len(calls(server, "claim"))
            await server.until(lambda: len(calls(server, "claim")) > open_claims or None, timeout=GENEROUS)
            (page,) = [line["page"] for line in logged if line["event"] == "listening"]
            async with ClientSession(page) as client:
                for module in (claiming, helm, herald):
                    monkeypatch.setattr(module, "boottime", lambda: boottime() + 3600.0)
                after_a_suspend = await verdict(client)
                async with asyncio.timeout(GENEROUS):
                    while "the claim of slot" not in await verdict(client):
                        await asyncio.sleep(0.05)

    assert '"ok":true' in after_a_suspend
