from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
import structlog.testing

from supervisor.concurrency.helpers import to_thread_uncancelled
from supervisor.job import Blob, Failed, Fence, Outcome, Succeeded
from supervisor.job_server import AuthRevoked, RateLimited, RequestRejected, StaleFence, Unavailable, Unreachable
from supervisor.reporting.replay import MAX_OUTCOME_AGE, Replay, TooOld
from supervisor.reporting.report import INTERRUPTED, Accepted, Answer, Rejected, Report, Reporter, RetryLater
from supervisor.reporting.spool import Spool, SpoolFolder
from supervisor.reporting.spool_format import Destination
from supervisor.stats import Stats

HERE = Destination("https://api.example.com", "acme")
FENCE = Fence("box-7", "job-1", 2)
RESULT = Succeeded(b"QUJD")
CANCELLED = Failed("Cancelled", "the server asked to")
AWAY = Unavailable("503")
BUSY = RateLimited("429", retry_after=0.01)
STALE = StaleFence("409")
REVOKED = AuthRevoked("401")

Said = Exception | None | Callable[[], None]


class Server:
    """Answers completes by a script, then by acceptance; a callable looks around while the call is under way."""

    def __init__(self, *script: Said, settled: bool | Exception = False) -> None:
        self.script = list(script)
        self.settled = settled
        self.received: list[tuple[Fence, Outcome]] = []
        self.lookups = 0

    async def complete(self, fence: Fence, outcome: Outcome) -> None:
        if isinstance(outcome, Succeeded) and isinstance(outcome.result, Blob):
            outcome = Succeeded(os.pread(outcome.result.descriptor, outcome.result.size, 0))
        self.received.append((fence, outcome))
        said = self.script.pop(0) if self.script else None
        if isinstance(said, Exception):
            raise said
        if said is not None:
            said()

    async def is_settled(self, _: Fence) -> bool:
        self.lookups += 1
        if isinstance(self.settled, Exception):
            raise self.settled
        return self.settled


class World:
    """A reporter, its spool, and a server that is told what to answer."""

    def __init__(self, state: Path) -> None:
        self.server = Server()
        self.now = 1e9
        self.spool = Spool(state, now=lambda: self.now)
        server: Any = self.server
        self.reporter = Reporter(server, self.spool, HERE, 5.0, Stats())
        self.replay = Replay(self.reporter, now=lambda: self.now)

    def answers(self, *script: Said, settled: bool | Exception = False) -> None:
        self.server.script = list(script)
        self.server.settled = settled

    def report(self, outcome: Outcome = RESULT) -> Report:
        return self.reporter.report(FENCE, "render", outcome, structlog.get_logger())

    def on_disk(self, shelf: SpoolFolder = SpoolFolder.WAITING) -> list[str]:
        """The kinds of outcome that lie on a shelf."""
        notes = [found.record for found in self.spool.find(shelf)]
        return ["damaged" if not note else note.failed.error_type if note.failed else "completed" for note in notes]

    async def outcome_left(self, outcome: Outcome = RESULT) -> Path:
        """An outcome that an earlier process has left."""
        report = self.report(outcome)
        await report.end()
        (path,) = await self.replay.waiting()
        return path


@pytest.fixture
def world(state: Path) -> World:
    return World(state)


async def test_a_report_that_is_accepted_at_once_never_touches_the_disk(world: World) -> None:
    report = world.report()

    answer = await report.deliver()
    await report.end()

    assert answer == Accepted()
    assert not world.spool.folder.exists()


@pytest.mark.parametrize("why", [AWAY, BUSY])
async def test_a_report_that_is_not_accepted_at_first_is_on_disk_until_it_is(world: World, why: Exception) -> None:
    kept: list[list[str]] = []
    world.answers(why, lambda: kept.append(world.on_disk()))
    report = world.report()

    answer = await report.deliver()
    await report.end()

    assert answer == Accepted()
    assert kept == [["completed"]]
    assert world.on_disk() == []


async def test_what_is_kept_early_is_on_disk_when_it_is_first_sent(world: World) -> None:
    kept: list[list[str]] = []
    world.answers(lambda: kept.append(world.on_disk()))
    report = world.report()

    await report.spool()
    await report.deliver()
    await report.end()

    assert kept == [["completed"]]
    assert world.on_disk() == []


async def test_a_report_that_is_refused_leaves_nothing(world: World) -> None:
    world.answers(STALE)
    report = world.report()
    await report.spool()

    answer = await report.deliver()
    await report.end()

    assert isinstance(answer, Rejected)
    assert (world.on_disk(), world.server.lookups) == ([], 0)


@pytest.mark.parametrize(("settled", "answer"), [(True, Accepted), (False, Rejected), (STALE, Rejected)])
async def test_a_refusal_after_an_unanswered_send_is_looked_up(world: World, settled: Any, answer: type) -> None:
    world.answers(AWAY, STALE, settled=settled)
    report = world.report()

    found = await report.deliver()
    await report.end()

    assert isinstance(found, answer)
    assert (world.on_disk(), world.server.lookups) == ([], 1)


async def test_a_look_up_that_fails_is_repeated(world: World) -> None:
    world.answers(AWAY, STALE, STALE, settled=AWAY)
    report = world.report()
    await report.send()

    first = await report.send()
    world.server.settled = True
    second = await report.send()
    await report.end()

    assert (first, second) == (RetryLater("503"), Accepted())


async def test_the_server_s_own_wish_to_wait_is_passed_on(world: World) -> None:
    world.answers(RateLimited("429", retry_after=17.0))
    report = world.report()

    answer = await report.send()
    await report.end()

    assert answer == RetryLater("429", 17.0)


@pytest.mark.parametrize(("status", "error_type"), [(400, "ResultRejected"), (413, "ResultTooLarge")])
async def test_what_the_server_refuses_as_such_is_reported_as_that_and_kept(
    world: World, status: int, error_type: str
) -> None:
    kept: list[list[str]] = []
    world.answers(RequestRejected("no", status=status), lambda: kept.append(world.on_disk()))
    report = world.report()

    answer = await report.deliver()
    await report.end()

    assert answer == Accepted()
    assert kept == [[error_type]]
    assert world.on_disk() == []
    assert world.on_disk(SpoolFolder.UNDELIVERABLE) == ["completed"]
    assert isinstance(report.outcome, Failed)
    assert report.outcome.error_type == error_type


async def test_a_server_that_refuses_every_report_is_asked_twice(world: World) -> None:
    world.answers(RequestRejected("no", status=400), RequestRejected("no", status=400))
    report = world.report()

    answer = await report.deliver()
    await report.end()

    assert isinstance(answer, Rejected)
    assert len(world.server.received) == 2
    assert world.on_disk() == []


async def test_a_revoked_key_leaves_the_outcome_on_disk(world: World) -> None:
    world.answers(REVOKED)
    report = world.report()

    with pytest.raises(AuthRevoked):
        await report.deliver()
    await report.end()

    assert world.on_disk() == ["completed"]
    assert world.reporter.outcome_left.is_set()


async def test_a_report_that_is_cut_short_leaves_the_outcome_on_disk(world: World) -> None:
    report = world.report()

    await report.end()

    assert report.is_spooled
    assert world.on_disk() == ["completed"]


@pytest.mark.parametrize(
    ("said", "reason"), [(AWAY, "503"), (REVOKED, "401"), (None, "the report ended before the server replied")]
)
async def test_that_an_outcome_waits_is_told_once_with_its_reason(
    world: World, said: Exception | None, reason: str
) -> None:
    world.answers(*([] if said is None else [said]), AWAY, AWAY)

    with structlog.testing.capture_logs() as lines:
        report = world.report()
        if said is not None:
            with suppress(AuthRevoked):
                await report.send()
        await report.end()
        (path,) = await world.replay.waiting()
        for _ in range(3):
            await world.replay.send(path)

    told = [line for line in lines if line["event"] == "outcome stored in the spool"]
    assert [line["reason"] for line in told] == [reason]
    assert world.reporter.logged_paths == set()


async def test_what_is_not_ours_any_more_is_not_left_on_disk(world: World) -> None:
    report = world.report()
    await report.spool()

    await report.end(is_ours=False)

    assert world.on_disk() == []
    assert not world.reporter.outcome_left.is_set()


async def test_a_later_decision_replaces_what_is_on_disk(world: World) -> None:
    report = world.report()
    await report.spool()

    await report.replace(CANCELLED)
    kept = world.on_disk()
    await report.deliver()
    await report.end()

    assert kept == ["Cancelled"]
    assert world.server.received == [(FENCE, CANCELLED)]


async def test_a_full_disk_never_leaves_an_outcome_that_was_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = world.report()
    await report.spool()
    monkeypatch.setattr("supervisor.reporting.spool_format.write", full)

    await report.replace(CANCELLED)

    assert world.on_disk() == []
    assert await report.deliver() == Accepted()
    await report.end()


async def test_a_spool_that_cannot_be_used_ends_no_report(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.reporting.spool_format.write", full)
    world.answers(BUSY)
    report = world.report()

    answer = await report.deliver()
    await report.end()

    assert answer == Accepted()


async def test_an_outcome_that_nobody_could_take_is_one_clear_line(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.reporting.spool_format.write", full)

    with structlog.testing.capture_logs() as lines:
        await world.report().end()

    assert [line["log_level"] for line in lines] == ["warning", "error"]
    assert (lines[1]["reason"], lines[1]["disk"]) == (INTERRUPTED, "No space left on device")
    assert not world.reporter.outcome_left.is_set()


async def test_keeping_is_finished_before_a_cancelled_report_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, go_on = world.spool.write, threading.Event()

    def slow(*arguments: Any) -> Any:
        go_on.wait(10)
        return keep(*arguments)

    monkeypatch.setattr(world.spool, "write", slow)
    report = world.report()
    keeping = asyncio.create_task(report.spool())
    ending = asyncio.create_task(report.end())
    await asyncio.sleep(0.01)
    keeping.cancel()
    go_on.set()
    await asyncio.wait([keeping, ending])

    assert keeping.cancelled()
    assert world.on_disk() == ["completed"]
    entry = world.spool.acquire((await world.replay.waiting())[0])
    assert entry is not None  # nobody holds it
    entry.close()


async def test_the_replay_sends_with_the_fence_and_the_result_of_then(world: World) -> None:
    path = await world.outcome_left()

    answer = await world.replay.send(path)

    assert answer == Accepted()
    assert world.server.received == [(FENCE, RESULT)]
    assert world.on_disk() == []


@pytest.mark.parametrize(("settled", "answer"), [(True, Accepted), (False, Rejected)])
async def test_a_refused_replay_is_looked_up_and_dropped(world: World, settled: bool, answer: type) -> None:
    path = await world.outcome_left()
    world.answers(STALE, settled=settled)

    assert isinstance(await world.replay.send(path), answer)
    assert world.on_disk() == []


async def test_a_replay_that_is_not_accepted_waits_on(world: World) -> None:
    path = await world.outcome_left()
    world.answers(AWAY, BUSY)

    answers: list[Answer | TooOld | None] = [await world.replay.send(path) for _ in range(3)]

    assert answers == [RetryLater("503"), RetryLater("429", 0.01), Accepted()]
    assert world.on_disk() == []


async def test_a_replayed_outcome_that_the_server_refuses_as_such_is_undeliverable(world: World) -> None:
    path = await world.outcome_left()
    world.answers(RequestRejected("no", status=400))

    answer = await world.replay.send(path)

    assert answer == Accepted()
    assert [type(outcome) for _, outcome in world.server.received] == [Succeeded, Failed]
    assert (world.on_disk(), world.on_disk(SpoolFolder.UNDELIVERABLE)) == ([], ["completed"])


async def test_an_outcome_of_last_week_that_the_server_did_not_take_is_undeliverable(world: World) -> None:
    path = await world.outcome_left()
    world.now += MAX_OUTCOME_AGE + 1
    world.answers(AWAY)

    assert await world.replay.send(path) == TooOld()
    assert (world.on_disk(), world.on_disk(SpoolFolder.UNDELIVERABLE)) == ([], ["completed"])


async def test_an_outcome_whose_date_is_wrong_is_offered_until_the_server_is_there(world: World) -> None:
    path = await world.outcome_left()
    world.now += 20 * 365 * 86400.0  # a machine without a battery for its clock, until it is corrected
    world.answers(Unreachable("no connection"))

    assert await world.replay.send(path) == RetryLater("no connection", was_answered=False)
    assert world.on_disk() == ["completed"]
    assert await world.replay.send(path) == Accepted()
    assert world.on_disk() == []


async def test_an_outcome_that_is_being_reported_is_not_replayed_beside_that(world: World) -> None:
    report = world.report()
    await report.spool()

    found = [await world.replay.send(path) for path in await world.replay.waiting()]
    await report.end()

    assert found == [None]
    assert world.server.received == []


async def test_the_replay_goes_on_until_all_is_delivered_and_then_for_what_is_left_later(world: World) -> None:
    await world.outcome_left()
    world.answers(BUSY, BUSY)
    replaying = asyncio.create_task(world.replay.run())

    await until(lambda: world.on_disk() == [])
    await world.report(CANCELLED).end()
    await until(lambda: world.on_disk() == [])
    replaying.cancel()
    await asyncio.wait([replaying])

    assert [outcome for _, outcome in world.server.received] == [RESULT, RESULT, RESULT, CANCELLED]


async def test_one_outcome_that_breaks_us_does_not_keep_back_the_others(world: World) -> None:
    for number in range(2):
        await world.reporter.report(Fence("w", f"job-{number}", 1), "a", RESULT, structlog.get_logger()).end()
    world.answers(ZeroDivisionError("a bug"))
    replaying = asyncio.create_task(world.replay.run())

    await until(lambda: len(world.server.received) >= 2)
    replaying.cancel()
    await asyncio.wait([replaying])

    assert {fence.job_id for fence, _ in world.server.received} == {"job-0", "job-1"}


async def test_a_revoked_key_ends_the_replay_and_loses_nothing(world: World) -> None:
    await world.outcome_left()
    world.answers(REVOKED)

    with pytest.raises(AuthRevoked):
        await world.replay.run()

    assert world.on_disk() == ["completed"]


async def test_a_thread_is_waited_for_although_its_caller_is_cancelled_twice() -> None:
    go_on, discarded = threading.Event(), list[int]()

    def work() -> int:
        go_on.wait(10)
        return 42

    waiting = asyncio.create_task(to_thread_uncancelled(work, discard=discarded.append))
    for _ in range(2):
        await asyncio.sleep(0.01)
        waiting.cancel()
    is_done = waiting.done()
    go_on.set()
    await asyncio.wait([waiting])

    assert not is_done
    assert waiting.cancelled()
    assert discarded == [42]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.005)


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


async def test_a_server_that_asks_for_no_pause_is_not_sent_reports_in_a_loop(world: World) -> None:
    world.answers(*[RateLimited("429", retry_after=0.0)] * 1000)
    report = world.report()

    with suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await report.deliver()
    await report.end()
    reported = len(world.server.received)
    replaying = asyncio.create_task(world.replay.run())
    await asyncio.sleep(0.5)
    replaying.cancel()

    assert 1 <= reported <= 5
    assert 1 <= len(world.server.received) - reported <= 5


async def test_nothing_takes_the_place_of_an_outcome_that_has_ended(world: World) -> None:
    report = world.report()
    await report.end()

    await report.replace(CANCELLED)

    assert world.on_disk() == ["completed"]


async def test_an_outcome_is_not_said_to_be_kept_when_it_could_not_be(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.spool, "keep_copy", lambda _: False)
    world.answers(RequestRejected("413", status=413))
    report = world.report()

    with structlog.testing.capture_logs() as logged:
        await report.deliver()
    await report.end()

    assert [line["event"] for line in logged] == ["outcome rejected by the server and lost"]
