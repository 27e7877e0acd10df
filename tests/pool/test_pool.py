"""What slots share: the actions that may be claimed, and when."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from supervisor.pool import pool as pool_module
from supervisor.pool import quarantine
from tests.harness import GENEROUS
from tests.pool.test_slot import Dispenser, pool_of
from tests.process_world import a_job, module, world

NOW = 1000.0
ONLY = """
from supervisor import handler
handler("only")(lambda: None)
"""


async def test_a_trial_that_becomes_due_between_two_statements_wakes_the_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "FIRST_PAUSE", 0.01)
    server = Dispenser()
    server.big.close()  # no job is claimed here
    async with world(module(tmp_path / "handlers", ONLY)) as here:
        pool = pool_of(here, server, tmp_path)
        for _ in range(quarantine.MAX_CRASHES):
            pool.quarantine.record_crash(a_job("only"), NOW)
        clock = itertools.chain([NOW], itertools.repeat(NOW + 1.0))  # the trial is due after the first look
        monkeypatch.setattr(pool_module, "boottime", lambda: next(clock))

        async with asyncio.timeout(GENEROUS):
            await pool.wait_for_capacity()

        assert pool.claimable_actions() == ("only",)
