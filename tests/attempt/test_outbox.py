"""Events leave in their order, in batches the server takes, each of them once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from supervisor.attempt.outbox import EVENT_OVERHEAD_BYTES, MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Outbox
from supervisor.job import Event


def held(outbox: Outbox) -> int:
    """Events that it has not got rid of."""
    return len(outbox._waiting) + len(outbox._batch)


def tick(number: int, size: int = 0) -> Event:
    return Event("tick", str(number).encode().ljust(size))


def progress(number: int) -> Event:
    return Event("progress", str(number).encode())


def outbox_with(*events: Event) -> Outbox:
    outbox = Outbox()
    for event in events:
        outbox.add(event)
    return outbox


def all_of(outbox: Outbox) -> list[Event]:
    """Everything in it, batch by batch."""
    events: list[Event] = []
    while batch := outbox.batch():
        events += batch
        outbox.remove_batch()
    return events


def test_an_empty_outbox_has_no_batch() -> None:
    outbox = Outbox()

    assert outbox.batch() == ()
    assert not outbox.is_full


def test_events_keep_their_order() -> None:
    events = [tick(number) for number in range(250)]

    assert all_of(outbox_with(*events)) == events


def test_a_batch_is_no_larger_than_one_call_takes() -> None:
    outbox = outbox_with(*(tick(number) for number in range(250)))

    assert len(outbox.batch()) == MAX_BATCH_EVENTS


def test_a_batch_has_no_more_bytes_than_proxies_let_pass() -> None:
    size = 16 * 1024
    outbox = outbox_with(*(tick(number, size) for number in range(100)))

    batch = outbox.batch()

    assert len(batch) == MAX_BATCH_BYTES // (size + EVENT_OVERHEAD_BYTES)


def test_an_event_that_is_bigger_than_a_batch_goes_alone() -> None:
    big = tick(0, 2 * MAX_BATCH_BYTES)
    outbox = outbox_with(big, tick(1))

    assert outbox.batch() == (big,)


def test_a_batch_is_the_same_until_it_is_settled() -> None:
    outbox = outbox_with(tick(0), tick(1))

    first = outbox.batch()
    outbox.add(tick(2))

    assert outbox.batch() == first
    outbox.remove_batch()
    assert outbox.batch() == (tick(2),)


def test_of_the_progress_that_waits_only_the_newest_counts() -> None:
    outbox = outbox_with(progress(1), tick(1), progress(2), tick(2), progress(3))

    assert all_of(outbox) == [tick(1), tick(2), progress(3)]


def test_progress_that_is_on_its_way_is_not_taken_back() -> None:
    outbox = outbox_with(progress(1))
    outbox.batch()

    outbox.add(progress(2))

    assert all_of(outbox) == [progress(1), progress(2)]


def test_only_progress_collapses() -> None:
    alike = [Event("tick", b"{}")] * 3

    assert all_of(outbox_with(*alike)) == alike


def test_the_event_that_the_server_refuses_is_found_in_few_calls_and_no_other_is_lost() -> None:
    events = [tick(number) for number in range(MAX_BATCH_EVENTS)]
    outbox = outbox_with(*events, tick(100))
    accepted: list[Event] = []
    calls = 0

    while batch := outbox.batch():
        calls += 1
        if tick(37) not in batch:
            accepted += batch
            outbox.remove_batch()
        elif len(batch) == 1:
            outbox.remove_batch()
        else:
            outbox.halve()

    assert accepted == [event for event in [*events, tick(100)] if event != tick(37)]
    assert calls < 30


def test_it_is_full_when_the_bytes_that_wait_reach_the_limit() -> None:
    outbox = Outbox(limit=1000)

    outbox.add(tick(0, 900 - EVENT_OVERHEAD_BYTES))
    assert not outbox.is_full
    outbox.add(tick(1, 100 - EVENT_OVERHEAD_BYTES))
    assert outbox.is_full

    outbox.batch()
    assert outbox.is_full
    outbox.remove_batch()
    assert not outbox.is_full


def test_a_flood_of_empty_events_fills_it_too() -> None:
    outbox = Outbox(limit=1000)

    for _ in range(16):
        outbox.add(Event("tick", b""))

    assert outbox.is_full


@pytest.mark.parametrize("extra", [0, 5])
def test_progress_that_was_put_back_keeps_its_place(extra: int) -> None:
    outbox = outbox_with(tick(0), progress(1), *(tick(2 + number) for number in range(extra)))
    outbox.batch()
    outbox.halve()

    outbox.add(tick(99))

    assert all_of(outbox) == [tick(0), progress(1), *(tick(2 + number) for number in range(extra)), tick(99)]


@pytest.mark.parametrize("newer_comes_first", [False, True])
def test_progress_that_is_put_back_makes_way_for_newer_progress(*, newer_comes_first: bool) -> None:
    outbox = outbox_with(tick(0), progress(1))
    outbox.batch()

    if newer_comes_first:
        outbox.add(progress(2))
    outbox.halve()
    if not newer_comes_first:
        outbox.add(progress(2))

    assert all_of(outbox) == [tick(0), progress(2)]
    assert not held(outbox)


class Model(RuleBasedStateMachine):
    """Any order of calls, against two lists."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox()
        self.batch: list[Event] = []
        self.ticks: list[Event] = []
        self.accepted: list[Event] = []
        self.newest: Event | None = None
        self.count = 0

    @rule(size=st.sampled_from([0, 10, 16_000, MAX_BATCH_BYTES // 2]))
    def add_tick(self, size: int) -> None:
        self.count += 1
        self.ticks.append(tick(self.count, size))
        self.outbox.add(self.ticks[-1])

    @rule()
    def add_progress(self) -> None:
        self.count += 1
        self.newest = progress(self.count)
        self.outbox.add(self.newest)

    @rule()
    def take(self) -> None:
        batch = list(self.outbox.batch())
        assert not self.batch or batch == self.batch
        assert len(batch) <= MAX_BATCH_EVENTS
        assert len(batch) == 1 or sum(len(event.payload) for event in batch) <= MAX_BATCH_BYTES
        self.batch = batch

    @precondition(lambda self: self.batch)
    @rule()
    def settle(self) -> None:
        self.accepted += self.batch
        self.batch = []
        self.outbox.remove_batch()

    @precondition(lambda self: len(self.batch) > 1)
    @rule()
    def halve(self) -> None:
        self.batch = self.batch[: len(self.batch) // 2]
        self.outbox.halve()
        assert list(self.outbox.batch()) == self.batch

    @invariant()
    def it_is_empty_when_it_says_so(self) -> None:
        assert (held(self.outbox) == 0) == (self.outbox._size == 0)

    @invariant()
    def waiting_progress_is_at_most_one(self) -> None:
        assert len([event for event in self.outbox._waiting.values() if event.type == "progress"]) <= 1

    def teardown(self) -> None:
        self.accepted += all_of(self.outbox)
        numbers = [int(event.payload) for event in self.accepted]
        assert [event for event in self.accepted if event.type == "tick"] == self.ticks
        assert numbers == sorted(set(numbers))
        newest = [event for event in self.accepted if event.type == "progress"][-1:]
        assert newest == ([self.newest] if self.newest else [])
        assert (held(self.outbox), self.outbox._size) == (0, 0)


TestAnyOrderOfCalls = Model.TestCase


@given(st.lists(st.booleans(), max_size=300))
def test_waiting_progress_is_at_most_one(kinds: list[bool]) -> None:
    outbox = outbox_with(*(progress(n) if kind else tick(n) for n, kind in enumerate(kinds)))

    assert held(outbox) == kinds.count(False) + any(kinds)
