"""A lease lives as long as it is renewed in time, and never a moment longer."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.attempt.lease import Lease, LeaseLost, LeaseState, LeaseTerms
from supervisor.concurrency.backoff import Backoff
from supervisor.job import Directive

TERMS = LeaseTerms(interval=10.0, time_to_live=30.0)
CLAIMED_AT = 1000.0


def lease(terms: LeaseTerms = TERMS) -> Lease:
    return Lease(terms, claimed_at=CLAIMED_AT, backoff=Backoff(1.0, 2.0, jitter=lambda: 0.0))


TELL: dict[str, Callable[[Lease], object]] = {
    "beat accepted": lambda lease: lease.renewed(Directive.CONTINUE, sent_at=CLAIMED_AT + 1),
    "cancel asked": lambda lease: lease.renewed(Directive.CANCEL, sent_at=CLAIMED_AT + 1),
    "beat refused": lambda lease: lease.renewal_refused("another worker has it"),
    "report begins": lambda lease: lease.begin_report(),
    "report accepted": lambda lease: lease.report_accepted(),
    "report refused": lambda lease: lease.report_refused("stale"),
    "silent": lambda lease: lease.check(CLAIMED_AT + 30),
}
REACH: dict[LeaseState, tuple[str, ...]] = {
    LeaseState.HELD: (),
    LeaseState.CANCELLING: ("cancel asked",),
    LeaseState.REPORTING: ("report begins",),
    LeaseState.RELEASED: ("report begins", "report accepted"),
    LeaseState.LOST: ("report begins", "report refused"),
}


def lease_that_is(state: LeaseState) -> Lease:
    held = lease()
    for told in REACH[state]:
        TELL[told](held)
    assert held.state is state
    return held


@pytest.mark.parametrize(
    ("before", "told", "after"),
    [
        (LeaseState.HELD, "beat accepted", LeaseState.HELD),
        (LeaseState.HELD, "cancel asked", LeaseState.CANCELLING),
        (LeaseState.HELD, "report begins", LeaseState.REPORTING),
        (LeaseState.CANCELLING, "beat accepted", LeaseState.CANCELLING),
        (LeaseState.CANCELLING, "cancel asked", LeaseState.CANCELLING),
        (LeaseState.CANCELLING, "report begins", LeaseState.REPORTING),
        (LeaseState.REPORTING, "beat accepted", LeaseState.REPORTING),
        (LeaseState.REPORTING, "cancel asked", LeaseState.REPORTING),
        (LeaseState.REPORTING, "beat refused", LeaseState.REPORTING),
        (LeaseState.REPORTING, "report begins", LeaseState.REPORTING),
        (LeaseState.REPORTING, "report accepted", LeaseState.RELEASED),
        (LeaseState.REPORTING, "report refused", LeaseState.LOST),
        (LeaseState.RELEASED, "silent", LeaseState.RELEASED),
    ],
)
def test_what_a_lease_is_told_turns_its_state(before: LeaseState, told: str, after: LeaseState) -> None:
    held = lease_that_is(before)

    TELL[told](held)

    assert held.state is after


def test_a_lease_that_was_silent_is_refused_when_the_server_says_so_as_well() -> None:
    held = lease()
    with pytest.raises(LeaseLost):
        held.check(held.expires_at)
    assert not held.is_refused

    with pytest.raises(LeaseLost):
        held.renewal_refused("409")

    assert held.is_refused


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (LeaseState.HELD, "beat refused"),
        (LeaseState.HELD, "silent"),
        (LeaseState.CANCELLING, "beat refused"),
        (LeaseState.CANCELLING, "silent"),
        (LeaseState.REPORTING, "silent"),
    ],
)
def test_a_lease_that_is_refused_or_silent_is_lost(before: LeaseState, told: str) -> None:
    held = lease_that_is(before)
    TELL["beat accepted"](held)

    with pytest.raises(LeaseLost):
        TELL[told](held) if told != "silent" else held.check(CLAIMED_AT + 31)

    assert held.state is LeaseState.LOST


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (LeaseState.HELD, "report accepted"),
        (LeaseState.HELD, "report refused"),
        (LeaseState.CANCELLING, "report accepted"),
        (LeaseState.CANCELLING, "report refused"),
        *((LeaseState.RELEASED, told) for told in TELL if told != "silent"),
    ],
)
def test_what_cannot_happen_is_an_error_of_ours(before: LeaseState, told: str) -> None:
    held = lease_that_is(before)

    with pytest.raises(RuntimeError, match=before.value):
        TELL[told](held)

    assert held.state is before


@pytest.mark.parametrize("told", [told for told in TELL if told != "silent"])
def test_whoever_comes_late_to_a_lost_lease_learns_that_it_is_lost(told: str) -> None:
    """Heartbeat, events and report can be refused in the same turn of the loop."""
    held = lease_that_is(LeaseState.LOST)

    with pytest.raises(LeaseLost):
        TELL[told](held)

    assert held.state is LeaseState.LOST


def test_a_refused_report_is_told_with_its_reason() -> None:
    held = lease_that_is(LeaseState.REPORTING)

    lost = held.report_refused("409 fence")

    assert isinstance(lost, LeaseLost)
    assert str(lost) == "409 fence"


def test_a_silent_lease_is_lost_at_its_ttl() -> None:
    held = lease()

    held.check(math.nextafter(CLAIMED_AT + 30, 0))
    with pytest.raises(LeaseLost, match="30 s"):
        held.check(CLAIMED_AT + 30)


def test_a_renewal_counts_from_when_it_was_sent() -> None:
    held = lease()

    held.renewed(Directive.CONTINUE, sent_at=CLAIMED_AT + 10)  # however late the answer came

    assert held.expires_at == CLAIMED_AT + 40
    assert held.next_beat_at == CLAIMED_AT + 20


def test_a_renewal_never_moves_the_end_back() -> None:
    held = lease()
    held.renewed(Directive.CONTINUE, sent_at=CLAIMED_AT + 10)

    held.renewed(Directive.CONTINUE, sent_at=CLAIMED_AT + 5)

    assert held.expires_at == CLAIMED_AT + 40


def test_an_unanswered_beat_is_repeated_sooner_than_the_next_one_was_due() -> None:
    held = Lease(TERMS, claimed_at=CLAIMED_AT)
    pauses = []

    for _ in range(5):
        held.renewal_failed(CLAIMED_AT + 10)
        pauses.append(held.next_beat_at - CLAIMED_AT - 10)

    assert all(0 < pause <= TERMS.interval / 4 for pause in pauses)


def test_an_answer_makes_the_next_failure_the_first_one_again() -> None:
    held = lease()
    held.renewal_failed(CLAIMED_AT + 10)
    held.renewal_failed(CLAIMED_AT + 11)

    held.renewed(Directive.CONTINUE, sent_at=CLAIMED_AT + 12)
    held.renewal_failed(CLAIMED_AT + 22)

    assert held.next_beat_at == CLAIMED_AT + 23


def test_the_servers_wish_to_wait_is_granted() -> None:
    held = lease()

    held.renewal_failed(CLAIMED_AT + 10, wait=3.0)

    assert held.next_beat_at == CLAIMED_AT + 13


@pytest.mark.parametrize("wait", [600.0, math.inf])
def test_the_servers_wish_to_wait_leaves_time_for_another_beat(wait: float) -> None:
    held = lease()

    held.renewal_failed(CLAIMED_AT + 10, wait=wait)

    assert held.next_beat_at == CLAIMED_AT + 20  # half of what is left


def test_beats_never_follow_each_other_without_a_pause() -> None:
    held = lease()

    held.renewal_failed(CLAIMED_AT + 30, wait=0.0)

    assert held.next_beat_at > CLAIMED_AT + 30


@pytest.mark.parametrize(("now", "timeout"), [(0, 9.0), (21, 9.0), (25, 5.0), (30, 0.0), (31, 0.0)])
def test_a_beat_waits_for_less_than_the_interval_and_never_beyond_the_lease(now: float, timeout: float) -> None:
    assert lease().beat_timeout(CLAIMED_AT + now) == timeout


ENDURING = LeaseTerms(interval=10.0, time_to_live=30.0, survives_silence=True)


def test_a_lease_that_endures_silence_survives_any_but_no_refusal() -> None:
    held = lease(ENDURING)

    held.check(CLAIMED_AT + 10**9)

    assert held.expires_at == math.inf
    assert held.beat_timeout(CLAIMED_AT + 10**9) == 9.0
    with pytest.raises(LeaseLost, match="stale"):
        held.renewal_refused("stale")


def test_the_servers_wish_to_wait_leaves_time_for_another_beat_whatever_silence_is_endured() -> None:
    held = lease(ENDURING)

    held.renewal_failed(CLAIMED_AT + 10, wait=600.0)

    assert held.next_beat_at == CLAIMED_AT + 20
    assert held.is_overdue(CLAIMED_AT + 45)


@pytest.mark.parametrize("now", [30, 10**9])
def test_a_lease_that_may_be_given_away_already_is_asked_after_at_its_interval(now: float) -> None:
    held = lease(ENDURING)

    held.renewal_failed(CLAIMED_AT + now, wait=600.0)

    assert held.next_beat_at == CLAIMED_AT + now + 10


@given(st.floats(0, 200), st.floats(0.1, 60), st.floats(0.0, math.inf), st.booleans())
def test_no_wish_to_wait_outlasts_a_lease_that_lives(
    now: float, interval: float, wait: float, endures_silence: bool
) -> None:
    held = lease(LeaseTerms.of(interval, time_to_live=None, longest_interval=None, endures_silence=endures_silence))
    presumed_end = CLAIMED_AT + 3 * interval

    held.renewal_failed(CLAIMED_AT + now, wait=wait)

    assert held.next_beat_at <= max(presumed_end, CLAIMED_AT + now + interval)


@pytest.mark.parametrize("endures_silence", [False, True])
def test_a_length_that_the_server_tells_takes_the_place_of_the_guess(*, endures_silence: bool) -> None:
    held = lease(LeaseTerms.of(10.0, time_to_live=None, longest_interval=None, endures_silence=endures_silence))
    assert held.length_is_guessed

    held.set_length(6.0)
    held.renewal_failed(CLAIMED_AT + 1, wait=600.0)

    assert not held.length_is_guessed
    assert held.expires_at == (math.inf if endures_silence else CLAIMED_AT + 6)
    assert held.next_beat_at == CLAIMED_AT + 3.5


@pytest.mark.parametrize("endures_silence", [False, True])
@pytest.mark.parametrize(
    ("server", "ttl", "longest", "interval", "time_to_live"),
    [
        (30.0, None, None, 30.0, 90.0),
        (30.0, None, 5.0, 5.0, 90.0),
        (30.0, None, 60.0, 30.0, 90.0),
        (30.0, 120.0, None, 30.0, 120.0),
        (30.0, 15.0, None, 5.0, 15.0),  # or the lease would be over before its first beat
    ],
)
def test_the_terms_are_the_servers_unless_the_settings_are_stricter(
    server: float,
    ttl: float | None,
    longest: float | None,
    interval: float,
    time_to_live: float,
    *,
    endures_silence: bool,
) -> None:
    terms = LeaseTerms.of(server, time_to_live=ttl, longest_interval=longest, endures_silence=endures_silence)

    assert terms == LeaseTerms(interval, time_to_live, is_guessed=ttl is None, survives_silence=endures_silence)


def test_its_repr_tells_state_and_end() -> None:
    assert repr(lease()) == "<Lease held until 1030.000>"


@given(st.lists(st.tuples(st.sampled_from(sorted(TELL)), st.floats(0, 20), st.floats(0, 5)), max_size=30))
def test_no_lease_outlives_its_ttl_and_none_comes_back(story: list[tuple[str, float, float]]) -> None:
    held, now, renewed_at = lease(), CLAIMED_AT, CLAIMED_AT

    for told, pause, latency in story:
        before, sent_at, now = held.state, now + pause, now + pause + latency
        try:
            held.check(now)
            if told in ("beat accepted", "cancel asked"):
                held.renewed(Directive.CANCEL if told == "cancel asked" else Directive.CONTINUE, sent_at=sent_at)
                renewed_at = sent_at
            elif told != "silent":
                TELL[told](held)
        except LeaseLost:
            assert held.state is LeaseState.LOST
        except RuntimeError:
            assert held.state is before

        if before in (LeaseState.RELEASED, LeaseState.LOST):
            assert held.state is before
        if held.state not in (LeaseState.RELEASED, LeaseState.LOST):
            assert now < renewed_at + TERMS.time_to_live
            assert held.expires_at == renewed_at + TERMS.time_to_live


def test_a_lease_that_is_lost_is_lost_for_every_helper_that_asks() -> None:
    lease = Lease(LeaseTerms(1.0, 3.0), claimed_at=0.0)
    with pytest.raises(LeaseLost):
        lease.check(3.0)

    with pytest.raises(LeaseLost):
        lease.check(3.0)


def test_the_first_heartbeat_alone_comes_early_by_a_head_start() -> None:
    lease = Lease(LeaseTerms(10.0, 30.0), claimed_at=0.0, head_start=0.25)

    first = lease.next_beat_at
    lease.renewed(Directive.CONTINUE, sent_at=first)

    assert first == 7.5
    assert lease.next_beat_at == 17.5
