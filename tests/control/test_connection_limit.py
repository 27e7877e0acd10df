"""Which connection makes room for a new one."""

from __future__ import annotations

import pytest

from supervisor.control.connection_limit import (
    MAX_CONNECTIONS,
    MIN_ANSWER_TIME,
    RESERVED_CONNECTIONS,
    Caller,
    Connection,
    ConnectionLimit,
    Phase,
    choose_dropped,
)

OPERATOR = Caller(1, is_privileged=True)
PROBE = Caller("10.0.0.1")
CROWD = Caller("10.0.0.2")
LATE = 100.0


def full(caller: Caller, phase: Phase = Phase.READING) -> ConnectionLimit:
    """All places of callers without privilege are taken, from second 0 on."""
    limit = ConnectionLimit()
    for _ in range(MAX_CONNECTIONS):
        connection, dropped = limit.admit(caller, 0.0)
        assert connection is not None
        assert dropped is None
        connection.phase = phase
    return limit


def test_oldest_unfinished_request_makes_room() -> None:
    limit = ConnectionLimit()
    first, *_ = [limit.admit(CROWD, 0.0)[0] for _ in range(MAX_CONNECTIONS)]

    admitted, dropped = limit.admit(PROBE, 0.0)

    assert admitted is not None
    assert dropped is first


def test_peer_with_most_unfinished_requests_loses_its_oldest() -> None:
    slow_probe = Connection(PROBE, 0.0)
    crowd = [Connection(CROWD, 1.0) for _ in range(2)]

    assert choose_dropped([slow_probe, *crowd], PROBE, LATE) is crowd[0]


@pytest.mark.parametrize(("age", "is_dropped"), [(MIN_ANSWER_TIME / 2, False), (MIN_ANSWER_TIME, True)])
def test_an_unread_answer_makes_room_once_it_had_its_time(age: float, *, is_dropped: bool) -> None:
    admitted, dropped = full(CROWD, Phase.ANSWERING).admit(PROBE, age)

    assert (admitted is not None, dropped is not None) == (is_dropped, is_dropped)


def test_a_lasting_answer_makes_no_room() -> None:
    assert full(CROWD, Phase.LASTING).admit(PROBE, LATE) == (None, None)


@pytest.mark.parametrize("phase", Phase)
def test_operators_have_places_that_others_cannot_take(phase: Phase) -> None:
    limit = full(CROWD, phase)

    for _ in range(RESERVED_CONNECTIONS):
        admitted, dropped = limit.admit(OPERATOR, LATE)
        assert admitted is not None
        assert dropped is None


@pytest.mark.parametrize("phase", Phase)
def test_an_operator_is_never_dropped_for_others(phase: Phase) -> None:
    assert choose_dropped([Connection(OPERATOR, 0.0, phase)], CROWD, LATE) is None


def test_a_connection_that_is_closed_makes_room() -> None:
    limit = ConnectionLimit()
    first, *_ = [limit.admit(CROWD, 0.0)[0] for _ in range(MAX_CONNECTIONS)]
    assert first is not None
    limit.remove(first)
    limit.remove(first)

    assert limit.admit(PROBE, LATE)[1] is None
