"""Claiming is shut for several causes, and open when all are over."""

from __future__ import annotations

import asyncio

from supervisor.pool.claim_gate import BlockReason, ClaimGate
from supervisor.pool.poll_limit import PollLimiter


def test_a_gate_is_open_when_its_last_bar_is_lifted() -> None:
    opened: list[bool] = []
    gate = ClaimGate(lambda: opened.append(True))
    gate.block(BlockReason.MEMORY, "short of memory")
    gate.block(BlockReason.PAUSED, "paused")

    seen = [gate.reason]
    for bar in (BlockReason.PAUSED, BlockReason.PAUSED, BlockReason.MEMORY, BlockReason.MEMORY):
        gate.unblock(bar)
        seen.append(gate.reason)

    assert seen == ["paused", "short of memory", "short of memory", None, None]
    assert opened == [True]
    assert gate.is_open


async def test_nobody_polls_while_it_is_shut_and_somebody_does_as_soon_as_it_opens() -> None:
    polls = PollLimiter(2)
    polls.gate.block(BlockReason.PAUSED, "paused")
    polled = asyncio.Event()

    async def poll() -> None:
        await polls.wait_available()
        with polls:
            polled.set()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(poll())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not polled.is_set()
        assert not polls.is_stuck
        polls.gate.unblock(BlockReason.PAUSED)
        await polled.wait()


async def test_the_servers_pause_ends_no_other() -> None:
    polls = PollLimiter(1)
    polls.gate.block(BlockReason.PAUSED, "paused")
    polls.pause(0.01, "the server asks for it")

    async with asyncio.timeout(5):
        while polls.gate.is_blocked_by(BlockReason.SERVER):
            await asyncio.sleep(0.01)

    assert polls.gate.reason == "paused"
