"""A job server without a network: its own lease clock, fence, events and outcome, and calls that go wrong by a story.

A request arrives on its own, also when nobody waits for its answer any more, be it that the caller has lost patience
or that it is dead.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from supervisor.job import Blob, Directive, Event, Fence, Job, Outcome, Succeeded
from supervisor.job_server import RateLimited, RequestRejected, ServerError, StaleFence, Unavailable
from tests.model_loop import Clock
from tests.model_story import Fate, ServerStory, Turn
from tests.model_witness import Witness

PATIENCE = 10.0
"""Seconds that a call other than a heartbeat waits for its answer."""


class ModelServer:
    """Has handed out one job."""

    def __init__(self, story: ServerStory, refused_events: frozenset[int], clock: Clock, witness: Witness) -> None:
        self._story = story
        self._clock = clock
        self._witness = witness
        self._refused_events = {str(number).encode() for number in refused_events}
        self._began_at = clock.boottime()
        self._expires_at = clock.boottime() + story.time_to_live
        self._fates: dict[str, Iterator[Fate]] = {
            "heartbeat": iter(story.heartbeats),
            "events": iter(story.events),
            "complete": iter(story.completes),
            "lookup": iter(story.lookups),
        }

    async def claim(self, actions: Sequence[str], *, wait: float) -> Job | None:
        raise NotImplementedError

    async def heartbeat(self, _: Fence, *, timeout: float) -> Directive:
        self._witness.sends_heartbeat()
        sent_at = self._clock.boottime()
        directive: Directive = await self._call("heartbeat", self._renew, timeout)
        self._witness.saw_renewal(sent_at, directive)
        return directive

    async def send_events(self, _: Fence, events: Sequence[Event]) -> None:
        self._witness.sends_events()
        await self._call("events", lambda: self._publish(events))

    async def complete(self, _: Fence, outcome: Outcome) -> None:
        plain = _plain(outcome)
        self._witness.sends_complete(plain, self._refused_events)
        try:
            await self._call("complete", lambda: self._settle(plain))
        except (Unavailable, RateLimited):
            self._witness.saw_no_acceptance()
            raise

    async def lease_length(self, _: Fence) -> float | None:
        self._witness.sends_lookup()
        length: float | None = await self._call("lookup", self._tell_length)
        self._witness.saw_length(length)
        return length

    async def is_settled(self, _: Fence) -> bool:
        self._witness.sends_lookup()
        return bool(await self._call("lookup", lambda: self._witness.accepted is not None))

    async def _call(self, name: str, carry_out: Callable[[], Any], patience: float = PATIENCE) -> Any:
        fate = next(self._fates[name], Fate())
        answered = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(fate.there, self._arrive, fate, carry_out, answered)
        try:
            async with asyncio.timeout(patience):
                value, error = await answered
        except TimeoutError:
            raise Unavailable("no answer") from None
        if isinstance(error, StaleFence):
            self._witness.saw_refusal(name)
        if isinstance(error, RateLimited):
            self._witness.saw_limit(name, error.retry_after)
        if error is not None:
            raise error
        return value

    def _arrive(self, fate: Fate, carry_out: Callable[[], Any], answered: asyncio.Future[Any]) -> None:
        loop = asyncio.get_running_loop()
        if fate.turn is Turn.TWICE:
            loop.call_later(fate.wait, _result, carry_out)
        value, error = self._result_of(fate, carry_out)
        if fate.turn not in (Turn.REQUEST_LOST, Turn.ANSWER_LOST):
            loop.call_later(fate.back, _answer, answered, (value, error))

    def _result_of(self, fate: Fate, carry_out: Callable[[], Any]) -> tuple[Any, ServerError | None]:
        match fate.turn:
            case Turn.BROKEN | Turn.REQUEST_LOST:
                return None, Unavailable("503")
            case Turn.BROKEN_AFTERWARDS:
                _result(carry_out)
                return None, Unavailable("502")
            case Turn.LIMITED:
                return None, RateLimited("429", retry_after=fate.wait)
            case Turn.REJECTED:
                return None, RequestRejected("400", status=400)
            case Turn.TAKEN_AWAY:
                self._witness.is_taken_away = True
        return _result(carry_out)

    def _check_fence(self) -> None:
        is_silent = self._clock.boottime() >= self._expires_at and self._story.takes_away_when_silent
        if self._witness.accepted is None and is_silent:
            self._witness.is_taken_away = True
        if self._witness.is_taken_away or self._witness.accepted is not None:
            raise StaleFence("409")

    def _renew(self) -> Directive:
        self._check_fence()
        now = self._clock.boottime()
        self._expires_at = now + self._story.time_to_live
        after = self._story.cancels_after
        return Directive.CANCEL if after is not None and now >= self._began_at + after else Directive.CONTINUE

    def _publish(self, events: Sequence[Event]) -> None:
        self._check_fence()
        if any(event.payload in self._refused_events for event in events):
            raise RequestRejected("400", status=400)
        self._witness.published += events

    def _settle(self, outcome: Outcome) -> None:
        if self._story.answers_duplicates and outcome == self._witness.accepted:
            return
        self._check_fence()
        if self._story.rejects_result and isinstance(outcome, Succeeded):
            self._witness.saw_rejection()
            raise RequestRejected("refused", status=self._story.rejects_result)
        self._witness.accepted = outcome

    def _tell_length(self) -> float | None:
        return self._story.time_to_live if self._story.tells_time_to_live else None


def _result(carry_out: Callable[[], Any]) -> tuple[Any, ServerError | None]:
    try:
        return carry_out(), None
    except ServerError as error:
        return None, error


def _answer(answered: asyncio.Future[Any], answer: tuple[Any, ServerError | None]) -> None:
    if not answered.done():
        answered.set_result(answer)


def _plain(outcome: Outcome) -> Outcome:
    """The outcome as it goes over the wire, read while it is sent."""
    if isinstance(outcome, Succeeded) and isinstance(outcome.result, Blob):
        return Succeeded(os.pread(outcome.result.descriptor, outcome.result.size, 0))
    return outcome
