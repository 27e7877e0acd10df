"""Nothing is claimed while there is less memory than wanted, and a reload can want less."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from aiohttp import ClientSession

from supervisor.devserver.app import DevServer
from tests.harness import calls, finished_job, logged, program, start_job

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # the program brings its own loop; ours does not matter


async def test_nothing_is_claimed_while_memory_is_short(server: DevServer, state: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("min-free-memory = '900TiB'\n")
    async with program(server.url, state, config=str(file), listen="127.0.0.1:0") as process:
        await logged(state, "short of memory: the machine has ")
        await logged(state, '"serving"')
        await server.until(lambda: not [call for call in calls(server, "claim") if call.answered_at is None] or None)
        run = await start_job(server, "nothing")
        claims = len(calls(server, "claim"))
        process.send_signal(signal.SIGHUP)
        await logged(state, '"reloaded"')
        async with ClientSession(page(state)) as client, client.get("status.json") as told:
            blocked_claims = (await told.json())["claims"]
        async with ClientSession(page(state)) as client, client.get("metrics") as told:
            metrics = await told.text()
        async with ClientSession(page(state)) as client, client.get("readyz") as told:
            readiness = told.status, (await told.json())["reason"]
        assert server.jobs(run)[0].status == "pending"
        assert len(calls(server, "claim")) == claims

        file.write_text("min-free-memory = 'off'\n")
        process.send_signal(signal.SIGHUP)

        assert (await finished_job(server, run)).status == "completed"
        assert "there is memory again" in (state / "log").read_text()
    assert blocked_claims["blocked_by"] == ["memory"]
    assert blocked_claims["reason"].startswith("short of memory: the machine has ")
    assert readiness == (503, blocked_claims["reason"])
    assert 'mobius_supervisor_claims_blocked{reason="memory"} 1.0' in metrics
    assert 'mobius_supervisor_claims_blocked{reason="paused"} 0.0' in metrics


def page(state: Path) -> str:
    (found,) = re.findall(r'"page":"(.*?)"', (state / "log").read_text())
    return str(found)
