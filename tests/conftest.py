"""What all tests share: both event loops, a development server on a free port, short settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from supervisor.devserver.app import DevServer, DevServerSettings


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Every test that awaits runs on both loops."""
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


@pytest.fixture
async def server() -> AsyncIterator[DevServer]:
    """A server that wants a heartbeat every 200 ms and keeps a journal of the calls it gets."""
    async with DevServer(DevServerSettings(heartbeat_interval=0.2, journal=True)) as server:
        yield server


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory."""
    return tmp_path / "state"
