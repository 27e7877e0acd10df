"""One poll while the queue is cold, all free slots while jobs come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from supervisor.pool.claim_gate import BlockReason
from supervisor.pool.poll_limit import PollLimiter, PollWindow


def test_a_cold_queue_is_asked_by_one_poll() -> None:
    assert PollWindow().allowed == 1


def test_64_slots_ask_within_seven_answers() -> None:
    appetite = PollWindow()

    answers = 0
    while appetite.allowed < 64:
        appetite.found(64)
        answers += 1

    assert answers <= 7


def test_never_more_polls_than_slots_are_allowed() -> None:
    appetite = PollWindow()

    for _ in range(10):
        appetite.found(5)

    assert appetite.allowed == 5


def test_each_empty_answer_takes_one_poll_back_down_to_one() -> None:
    appetite = PollWindow()
    for _ in range(3):
        appetite.found(8)

    seen = []
    for _ in range(9):
        appetite.found_nothing()
        seen.append(appetite.allowed)

    assert seen == [7, 6, 5, 4, 3, 2, 1, 1, 1]


class Slots:
    """So many slots that want to poll; each holds its turn until it is told to go."""

    def __init__(self, polls: PollLimiter, group: asyncio.TaskGroup) -> None:
        self.polls = polls
        self.held: list[int] = []
        self._group = group
        self._go: dict[int, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def want(self, count: int) -> None:
        for _ in range(count):
            number = len(self.tasks)
            self._go[number] = asyncio.Event()
            self.tasks.append(self._group.create_task(self._poll(number)))

    def let_go(self, number: int) -> None:
        self._go[number].set()

    async def _poll(self, number: int) -> None:
        await self.polls.wait_available()
        with self.polls:
            self.held.append(number)
            await self._go[number].wait()


@asynccontextmanager
async def slots(count: int) -> AsyncIterator[Slots]:
    async with asyncio.TaskGroup() as group:
        slots = Slots(PollLimiter(count), group)
        slots.want(count)
        await settled(lambda: bool(slots.held))
        yield slots
        for task in slots.tasks:
            task.cancel()


async def settled(reached: Callable[[], bool]) -> None:
    """Give the loop the turns it needs until `reached`, and a few more in which too much could happen."""
    async with asyncio.timeout(5):
        while not reached():
            await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)


async def test_of_many_slots_one_polls() -> None:
    async with slots(8) as world:
        await settled(lambda: world.polls.open == 1)

        assert world.held == [0]
        assert world.polls.open == 1


async def test_a_poll_that_ends_is_followed_by_the_next_slot_in_line() -> None:
    async with slots(3) as world:
        world.let_go(0)
        await settled(lambda: len(world.held) == 2)

        assert world.held == [0, 1]
        assert world.polls.open == 1


async def test_each_job_that_is_found_doubles_the_polls() -> None:
    async with slots(8) as world:
        for expected in (2, 4, 8, 8):
            world.polls.found()
            await settled(lambda: len(world.held) >= expected)  # noqa: B023 - awaited at once

            assert world.polls.open == expected


async def test_polls_that_come_back_empty_are_not_all_opened_again() -> None:
    async with slots(8) as world:
        world.polls.found()
        world.polls.found()
        await settled(lambda: world.polls.open == 4)

        for number in range(4):
            world.polls.found_nothing()
            world.let_go(number)
        await settled(lambda: len(world.held) >= 5)

        assert world.polls.open == 1


async def test_a_cancelled_poll_makes_room() -> None:
    async with slots(3) as world:
        world.tasks[0].cancel()
        await settled(lambda: len(world.held) == 2)

        assert world.held == [0, 1]


async def test_a_slot_that_waits_and_is_cancelled_is_passed_over() -> None:
    async with slots(3) as world:
        world.tasks[1].cancel()
        await settled(world.tasks[1].done)

        world.let_go(0)
        await settled(lambda: len(world.held) == 2)

        assert world.held == [0, 2]


async def test_a_slot_that_is_cancelled_as_its_turn_comes_passes_it_on() -> None:
    async with slots(3) as world:
        world.let_go(0)
        await settled_until_admitted(world)

        world.tasks[1].cancel()
        await settled(lambda: len(world.held) == 2)

        assert world.held == [0, 2]


async def settled_until_admitted(world: Slots) -> None:
    """Until the turn is slot 1's, which has not noticed yet."""
    while world.polls.open:
        await asyncio.sleep(0)


@pytest.mark.parametrize("is_forgotten", [False, True])
async def test_who_is_being_called_is_not_stuck_but_who_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, *, is_forgotten: bool
) -> None:
    async with slots(3) as world:
        assert not world.polls.is_stuck
        if is_forgotten:
            monkeypatch.setattr(world.polls, "_admit", lambda: None)

        world.let_go(0)
        await settled_until_admitted(world)

        assert world.polls.is_stuck == is_forgotten


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
async def test_a_turn_that_fails_is_over(error: type[BaseException]) -> None:
    polls = PollLimiter(2)

    with pytest.raises(error), polls:
        raise error

    assert polls.open == 0


async def test_a_slot_that_finds_a_job_lets_others_poll_while_it_still_holds_its_turn() -> None:
    polls = PollLimiter(2)

    with polls:
        polls.found()
        await polls.wait_available()
        with polls:
            assert polls.open == 2


async def test_while_the_key_is_refused_one_poll_at_a_time_asks_again() -> None:
    async with slots(3) as world:
        world.polls.found()
        await settled(lambda: world.polls.open == 2)
        world.polls.refuse("refused", 0.01)
        for number in (0, 1):
            world.let_go(number)

        await settled(lambda: len(world.held) == 3)
        trial = world.polls.open
        world.let_go(2)  # without a verdict
        world.want(2)
        await settled(lambda: len(world.held) == 4)
        again = world.polls.open
        world.polls.accept()
        await settled(lambda: len(world.held) == 5)

    assert (trial, again, world.polls.gate.is_open) == (1, 1, True)


async def test_a_pause_of_the_operator_holds_back_the_poll_that_asks_again() -> None:
    async with slots(2) as world:
        world.polls.gate.block(BlockReason.PAUSED, "paused")
        world.polls.refuse("refused", 0.0)
        world.let_go(0)
        await settled(lambda: world.polls.open == 0)
        before = list(world.held)

        world.polls.gate.unblock(BlockReason.PAUSED)
        await settled(lambda: len(world.held) == 2)

    assert before == [0]
