"""Whatever happens, the promises hold: attempt, lease, outbox, report, spool and replay against a model of the rest.

Everything between the server's interface and the child's is the product; server, network, child, time and the moment
of death are made up.  More stories than the suite tries: MODEL_STORIES=20000 pytest tests/test_model.py
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from structlog.testing import capture_logs

from supervisor.attempt.attempt import Attempt
from supervisor.attempt.config import JobConfig, SlotResources
from supervisor.attempt.lease import Lease, LeaseLost, LeaseTerms
from supervisor.attempt.outcome import SHUTDOWN
from supervisor.concurrency.timers import TimerQueue
from supervisor.job import Fence, Job
from supervisor.limits import Limits
from supervisor.reporting.replay import Replay
from supervisor.reporting.report import Reporter
from supervisor.reporting.spool import Spool, SpoolFolder, file_name
from supervisor.reporting.spool_format import Destination
from supervisor.stats import Stats
from tests.model_child import ScriptedChild
from tests.model_loop import Clock, VirtualLoop
from tests.model_server import ModelServer
from tests.model_story import INTERVAL, TALES, Moment, Story, stories
from tests.model_witness import Witness

STORIES = int(os.environ.get("MODEL_STORIES", "0"))
HERE = Destination("https://api.example.com", "acme")
FENCE = Fence("box-7", "job-1", 1)
RULES = JobConfig("box-7", 0.0, Limits(), None, None, Path("/nowhere"))
JOB = Job("job-1", "run-1", "flow", "step", "render", 1, "default", b"{}", INTERVAL)
LONG_ENOUGH = 1000.0
"""Seconds after which the server must have what lies in the spool; the replay waits for a minute at most."""


class Crash(Exception):
    """The supervisor is killed."""


class World:
    """One attempt in the hands of a supervisor, and of its successor if it is killed."""

    def __init__(self, story: Story, state: Path) -> None:
        self.story = story
        self.state = state
        self.clock = Clock()
        self.loop = VirtualLoop(self.clock, iter(story.disk_delays))
        self.steps = 0
        self.attempt: Attempt | None = None
        place = state / "spool" / file_name(HERE, FENCE)
        copy = state / "spool" / SpoolFolder.UNDELIVERABLE.value / place.name
        self.witness = Witness(
            self.loop,
            self.clock,
            time_to_live=math.inf if story.is_idempotent else 3 * INTERVAL,
            spool_after=story.spool_after,
            grace=story.grace,
            ends_by=self.loop.time() + min(each for each in (story.timeout, story.shutdown_after) if each is not None),
            is_on_disk=lambda: place.exists() or copy.exists(),
            has_copy=copy.exists,
            has_room=not story.disk_is_full,
        )
        if story.is_idempotent:
            self.witness.saw_length(math.inf)  # whatever the server tells
        self.server = ModelServer(story.server, story.child.refused_events, self.clock, self.witness)
        if story.disk_is_full:
            (state / "spool").touch()  # there is no folder to be had

    def run(self, lines: list[Any]) -> None:
        """Tell the story to its end; raise when a promise is broken."""
        for at, length in self.story.suspends:
            self.loop.call_later(at, self._suspend, length)
        self.loop.selector.on_step = self._step
        try:
            try:
                self.loop.run_until_complete(self._live())
            except Crash:
                self._die()
                self.loop.run_until_complete(self._live_again())
            assert not Spool(self.state).find(SpoolFolder.DAMAGED)
            self.witness.look_back({line["event"] for line in lines})
        finally:
            self._die()
            self.loop.close()

    def _step(self) -> None:
        self.steps += self._counts
        self.witness.look()
        if self.steps == self.story.crashes_at:
            self.witness.saw_crash()
            raise Crash

    @property
    def _counts(self) -> bool:
        match self.story.crashes_after:
            case Moment.CLAIM:
                return True
            case Moment.ANSWER:
                return self.witness.has_answer
            case Moment.CANCEL:
                return self.witness.has_seen_cancel

    def _die(self) -> None:
        """End every task, and let none of them do anything in the world while it ends."""
        self.loop.selector.on_step = lambda: None
        self.loop.kill()
        self.witness.handler_runs = False  # its parent's death is its own
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.forget_stop()
        self.loop.run_until_complete(_ended(tasks))
        _close_files_in(self.state)
        self.loop.revive()

    async def _live(self) -> None:
        reporter = self._new_reporter()
        async with asyncio.TaskGroup() as group:
            replay = group.create_task(Replay(reporter, now=self.clock.wall).run(), name="replay")
            await self._work(reporter)
            await self._until_delivered()
            replay.cancel()

    async def _live_again(self) -> None:
        self.loop.selector.on_step = self.witness.look
        replay = asyncio.create_task(Replay(self._new_reporter(), now=self.clock.wall).run(), name="replay")
        await self._until_delivered()
        replay.cancel()
        await _ended({replay})

    def _new_reporter(self) -> Reporter:
        spool = Spool(self.state, now=self.clock.wall)
        return Reporter(self.server, spool, HERE, self.story.spool_after, Stats())

    async def _work(self, reporter: Reporter) -> None:
        """What a slot does with a job."""
        child: Any = ScriptedChild(self.story.child, self.witness)
        attempt = self.attempt = self._new_attempt(reporter, child)
        if self.story.shutdown_after is not None:
            self.loop.call_later(self.story.shutdown_after, self._shut_down, attempt)
        try:
            await attempt.run()
        except* LeaseLost:
            await child.kill()
        finally:
            self.witness.attempt_runs = False

    def _new_attempt(self, reporter: Reporter, child: Any) -> Attempt:
        terms = LeaseTerms.of(
            JOB.heartbeat_interval,
            time_to_live=None,
            longest_interval=None,
            endures_silence=self.story.is_idempotent,
        )
        return Attempt(
            JOB,
            SlotResources(1, self.state, reporter, TimerQueue()),
            RULES,
            Limits(cancel_grace=self.story.grace, timeout=self.story.timeout),
            lease=Lease(terms, claimed_at=self.clock.boottime()),
            claimed_at=self.clock.boottime(),
            child=child,
            now=self.clock.boottime,
        )

    def _suspend(self, length: float) -> None:
        self.clock.suspend(length)
        if self.attempt is not None and self.witness.attempt_runs:
            self.attempt.recheck_lease()

    def _shut_down(self, attempt: Attempt) -> None:
        if self.witness.attempt_runs:
            attempt.stop(SHUTDOWN)

    async def _until_delivered(self) -> None:
        spool = Spool(self.state)
        for _ in range(int(LONG_ENOUGH / 5)):
            if not spool.waiting(HERE):
                return
            await asyncio.sleep(5)
        raise AssertionError("the spool is never empty")


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    """Wait for tasks that were cancelled, however they end."""
    await asyncio.gather(*tasks, return_exceptions=True)


def _close_files_in(folder: Path) -> None:
    """As the kernel does for a process that has died: their locks end with them."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if descriptor.readlink().is_relative_to(folder):
                os.close(int(descriptor.name))


def tell(story: Story) -> None:
    with tempfile.TemporaryDirectory() as folder, capture_logs() as lines:
        World(story, Path(folder)).run(lines)
    errors = [line for line in lines if line["log_level"] in ("error", "critical")]
    assert story.disk_is_full or not errors, errors


@pytest.mark.parametrize("spool_after", [0.0, 5.0])
@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.filterwarnings("default::ResourceWarning")
@pytest.mark.timeout(60 + STORIES)
def test_the_promises_hold_whatever_happens(*, crashes: bool, spool_after: float) -> None:
    @settings(
        max_examples=STORIES or 200,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(stories(crashes=crashes, spool_after=spool_after))
    def holds(story: Story) -> None:
        tell(story)

    if not STORIES:
        holds = seed(f"{crashes} {spool_after}")(holds)  # the same ones each time, and others for each of the four
    holds()


@pytest.mark.parametrize("tale", TALES)
def test_the_promises_hold_when(tale: str) -> None:
    tell(TALES[tale])
