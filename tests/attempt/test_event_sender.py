"""Events of one attempt on their way, and the child that is read no faster than they go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
import structlog.testing

from supervisor.attempt.event_sender import EventSender
from supervisor.attempt.lease import Lease, LeaseTerms
from supervisor.attempt.outbox import MAX_OUTBOX_BYTES, OVERFULL_FACTOR
from supervisor.concurrency.helpers import HelperTasks
from supervisor.job import Event, Fence
from supervisor.job_server import RateLimited, RequestRejected
from supervisor.stats import Stats
from tests.harness import GENEROUS

BIG = Event("page", b"x" * 10_000)


class Tap:
    is_paused = False

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False


class Server:
    """Answers at a word, or refuses at once."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal = refusal
        self.answers = asyncio.Event()
        self.calls = 0

    async def send_events(self, _: Fence, __: Sequence[Event]) -> None:
        self.calls += 1
        if self.refusal is not None:
            raise self.refusal
        await self.answers.wait()


def courier_of(server: Any, tap: Tap, beside: HelperTasks, ledger: Stats | None = None) -> EventSender:
    return EventSender(
        Fence("worker", "job", 1),
        lease=Lease(LeaseTerms.of(30.0, time_to_live=None, longest_interval=None), claimed_at=0.0),
        server=server,
        stats=ledger or Stats(),
        tap=tap,
        beside=beside,
        log=structlog.get_logger(),
        now=lambda: 0.0,
    )


def fill(courier: EventSender, *, hold_back: bool) -> int:
    """Give it more than it may keep, whatever it does; return how many events."""
    count = 2 * OVERFULL_FACTOR * MAX_OUTBOX_BYTES // len(BIG.payload)
    for _ in range(count):
        courier.add(BIG, hold_back=hold_back)
    return count


async def test_a_full_outbox_holds_the_child_back_until_there_is_room() -> None:
    server, tap = Server(), Tap()
    async with HelperTasks() as beside:
        courier = courier_of(server, tap, beside)
        while not courier.is_full:
            courier.add(BIG, hold_back=True)

        assert tap.is_paused

        server.answers.set()
        async with asyncio.timeout(GENEROUS):
            await courier.flush()
        assert not tap.is_paused


async def test_a_courier_that_gives_up_leaves_its_child_to_be_read() -> None:
    tap = Tap()
    async with HelperTasks() as beside:
        courier = courier_of(Server(), tap, beside)
        while not courier.is_full:
            courier.add(BIG, hold_back=True)
        assert tap.is_paused

        courier.abort("the job is cancelled")

        assert not tap.is_paused


async def test_what_a_handler_says_that_is_being_stopped_is_bounded_and_the_rest_is_counted() -> None:
    ledger = Stats()
    async with HelperTasks() as beside:
        courier = courier_of(Server(), Tap(), beside, ledger)

        given = fill(courier, hold_back=False)

        kept = courier._outbox._size
        assert OVERFULL_FACTOR * MAX_OUTBOX_BYTES <= kept < OVERFULL_FACTOR * MAX_OUTBOX_BYTES + 2 * len(BIG.payload)
        assert ledger.events_dropped == given - len(courier._outbox._waiting)


async def test_a_server_that_asks_for_no_pause_is_not_asked_in_a_loop() -> None:
    server = Server(RateLimited("429", retry_after=0.0))
    async with HelperTasks() as beside:
        courier = courier_of(server, Tap(), beside)
        courier.add(BIG, hold_back=True)
        await asyncio.sleep(0.5)

    assert 1 <= server.calls <= 5


class Particular:
    """Refuses any batch that has an event of one type."""

    def __init__(self, refused: str) -> None:
        self.refused = refused
        self.taken: list[str] = []

    async def send_events(self, _: Fence, events: Sequence[Event]) -> None:
        types = [event.type for event in events]
        if self.refused in types:
            raise RequestRejected("400 bad event", status=400)
        self.taken += types


async def test_an_event_that_the_server_refuses_is_dropped_by_name_and_the_others_arrive() -> None:
    server, ledger = Particular("odd"), Stats()
    with structlog.testing.capture_logs() as logged:
        async with HelperTasks() as beside:
            courier = courier_of(server, Tap(), beside, ledger)
            for kind in ("one", "two", "odd", "three"):
                courier.add(Event(kind, b"{}"), hold_back=True)
            async with asyncio.timeout(GENEROUS):
                await courier.flush()

    assert server.taken == ["one", "two", "three"]
    assert (ledger.events_sent, ledger.events_dropped) == (3, 1)
    assert [(line["event"], line["type"]) for line in logged] == [("event dropped: the server refuses it", "odd")]
