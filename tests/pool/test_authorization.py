"""One refusal of the key blocks claims; a refusal that lasts ends the program."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from supervisor.job_server import AuthRevoked
from supervisor.pool.authorization import CLAIM, MAX_RETRY_DELAY, Authorization

TIMEOUT = 120.0


class Blocker:
    """Keeps what it is asked for."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.delays: list[float] = []

    def block_for_key(self, reason: str, retry_in: float) -> None:
        self.reason = reason
        self.delays.append(retry_in)

    def unblock_for_key(self) -> None:
        self.reason = None


class World:
    """An authorization whose key was accepted once, and its clock."""

    def __init__(self, *, is_known: bool = True) -> None:
        self.time = 1000.0
        self.blocker = Blocker()
        self.authorization = Authorization(TIMEOUT, is_known=is_known, now=lambda: self.time)
        self.authorization.blocker = self.blocker

    def accept(self, call: str, age: float = 0.0) -> None:
        self.authorization.accepted(call, self.time - age)

    def refuse(self, call: str) -> None:
        self.authorization.refused(call, "401 unauthorized")

    def refuse_until_the_end(self) -> None:
        while len(self.blocker.delays) < 1000:
            self.time += self.blocker.delays[-1]
            self.refuse(CLAIM)


def test_a_refused_first_claim_ends_the_program_at_once() -> None:
    world = World(is_known=False)

    world.refuse("complete")  # of an earlier run's outcome: it decides nothing
    with pytest.raises(AuthRevoked, match=r"^401 unauthorized$"):
        world.refuse(CLAIM)

    assert world.blocker.delays == []


@pytest.mark.parametrize("call", [CLAIM, "heartbeat", "events", "complete", "look-up"])
def test_a_refused_call_blocks_claims_until_it_is_accepted(call: str) -> None:
    world = World()
    world.refuse(call)
    blocked = world.blocker.reason

    world.accept(call)

    assert (blocked, world.blocker.reason) == ("the server refuses the API key: 401 unauthorized", None)


def test_an_accepted_claim_clears_every_refusal_and_no_other_call_clears_that_of_a_claim() -> None:
    world = World()
    world.refuse(CLAIM)
    world.refuse("heartbeat")

    world.accept("heartbeat")
    assert world.blocker.reason is not None
    world.refuse("heartbeat")
    world.accept(CLAIM)
    assert world.blocker.reason is None


def test_a_call_that_was_sent_before_the_refusal_clears_nothing() -> None:
    world = World()
    world.refuse(CLAIM)

    world.accept(CLAIM, age=0.1)

    assert world.blocker.reason is not None


def test_the_key_is_tried_again_with_growing_delays_and_once_more_at_the_very_end() -> None:
    world = World()
    world.refuse(CLAIM)

    with pytest.raises(AuthRevoked, match="the key stayed refused for 2m"):
        world.refuse_until_the_end()

    delays = world.blocker.delays
    assert 5 < len(delays) < 200
    assert max(delays) <= MAX_RETRY_DELAY
    assert sum(delays) == pytest.approx(TIMEOUT)


def test_the_timeout_begins_anew_with_each_acceptance_and_follows_a_reload() -> None:
    world = World()
    for _ in range(3):
        world.refuse("heartbeat")
        world.time += TIMEOUT - 1
        world.accept("heartbeat")
    world.refuse("heartbeat")
    world.time += 10
    world.authorization.timeout = 5.0

    with pytest.raises(AuthRevoked):
        world.refuse("heartbeat")


def test_without_a_timeout_a_refusal_ends_the_program_and_no_claim_is_said_to_be_blocked() -> None:
    world = World()
    world.authorization.timeout = 0.0

    with capture_logs() as logged, pytest.raises(AuthRevoked, match=r"^401 unauthorized$"):
        world.refuse("complete")

    assert (logged, world.blocker.delays) == ([], [])
