"""Nothing that a server answers at once makes us ask in a loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from supervisor.devserver.app import DevServer
from supervisor.devserver.call_log import Call
from tests.harness import calls, supervising


async def claims_in_a_second(server: DevServer) -> int:
    await server.until(lambda: calls(server, "claim") or None)
    before = len(calls(server, "claim"))
    await asyncio.sleep(1.0)
    return len(calls(server, "claim")) - before


async def test_claims_back_off_from_a_server_that_asks_for_no_pause(server: DevServer, state: Path) -> None:
    async def limit(call: Call) -> web.StreamResponse | None:
        return web.Response(status=429, headers={"Retry-After": "0"}) if call.name == "claim" else None

    server.intercept = limit
    async with supervising(server, state):
        assert await claims_in_a_second(server) <= 8


async def test_claims_that_are_not_to_wait_are_made_now_and_then(server: DevServer, state: Path) -> None:
    async with supervising(server, state, wait_seconds="0"):
        assert 1 <= await claims_in_a_second(server) <= 4
