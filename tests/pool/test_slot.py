"""What a slot holds of a job it gives up, however early that is."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog.testing
from msgspec.structs import replace

from supervisor.attempt.attempt import QUICK_JOB_TIME
from supervisor.attempt.config import JobConfig
from supervisor.attempt.outcome import SHUTDOWN
from supervisor.job import Blob, Directive, Event, Failed, Fence, Job, Outcome, Succeeded
from supervisor.job_server import JobServer, StaleFence
from supervisor.limits import Limits
from supervisor.linux.remove_tree import remove_tree
from supervisor.linux.syscalls import boottime
from supervisor.pool import slot
from supervisor.pool.claims import Claimer
from supervisor.pool.pool import Pool
from supervisor.pool.warm_child import WarmChild
from supervisor.process.child import Child
from supervisor.reporting.report import Reporter
from supervisor.reporting.spool import Spool
from supervisor.reporting.spool_format import Destination
from supervisor.stats import Stats
from tests.harness import GENEROUS, zygote_of
from tests.process_world import World, a_job, module, world


class Dispenser:
    """A job server that hands out a first job, then a big one; from then on no child can be forked."""

    def __init__(self) -> None:
        self.big = a_job("fresh", text="x" * 2_000_000)
        self.claimed = 0
        self.handed_out = asyncio.Event()
        self.beats = 0
        self.beaten = asyncio.Event()
        self.refusal: Exception | None = None
        self.outcomes: list[Outcome] = []

    async def claim(self, *_: object, **__: object) -> Job:
        self.claimed += 1
        if self.claimed == 1:
            return a_job("two-per-child")
        if self.claimed > 2:
            await asyncio.Event().wait()
        os.kill(zygote_of(os.getpid()), signal.SIGSTOP)
        self.handed_out.set()
        return self.big

    async def heartbeat(self, _: Fence, **__: object) -> Directive:
        self.beats += 1
        self.beaten.set()
        if self.refusal is not None:
            raise self.refusal
        return Directive.CONTINUE

    async def lease_length(self, _: Fence) -> None:
        """Nobody knows."""

    async def complete(self, _: Fence, outcome: Outcome) -> None:
        """Accept whatever it is."""
        self.outcomes.append(outcome)


def pool_of(here: World, server: JobServer, state: Path, lease_ttl: float | None = None, *, workers: int = 1) -> Pool:
    ledger = Stats()
    return Pool(
        workers,
        rules=JobConfig("worker 1", 30.0, Limits(), lease_ttl, None, state),
        server=server,
        reporter=Reporter(server, Spool(state), Destination("http://nowhere", "acme"), 60.0, ledger),
        stats=ledger,
        reaper=here.reaper,
        zygote=here.zygote,
    )


async def test_a_job_that_is_dropped_before_it_has_a_child_is_held_no_longer(tmp_path: Path) -> None:
    server = Dispenser()
    async with world() as here:
        pool = pool_of(here, server, tmp_path)
        running = asyncio.create_task(pool.run())
        async with asyncio.timeout(GENEROUS):
            await server.handed_out.wait()
        await asyncio.sleep(0)  # the slot has it now, and asks for a child

        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        assert isinstance(server.big.parameters, Blob)
        assert server.big.parameters.descriptor < 0
        assert pool.reserve(server.big)


@asynccontextmanager
async def waiting_for_a_child(server: Dispenser, state: Path, **rules: float) -> AsyncIterator[Pool]:
    """A pool whose only slot has claimed a job, and no child for it can be born."""
    async with world() as here:
        pool = pool_of(here, server, state, **rules)
        running = asyncio.create_task(pool.run())
        try:
            async with asyncio.timeout(GENEROUS):
                await server.handed_out.wait()
                while not pool.busy:
                    await asyncio.sleep(0.001)
                yield pool
        finally:
            os.kill(here.zygote.pid, signal.SIGCONT)
            running.cancel()
            await asyncio.wait([running])


async def test_a_job_that_waits_for_its_child_is_seen_and_counted(tmp_path: Path) -> None:
    server = Dispenser()
    async with waiting_for_a_child(server, tmp_path) as pool:
        (slot,) = pool.status({})

        assert pool.busy == 1
        assert [attempt.job.job_id for attempt in pool.attempts] == ["job_1"]
        assert slot.job is not None
        assert slot.job.action == "fresh"
        assert pool._slots[0].counts_against("fresh")


async def test_a_job_that_is_stopped_while_it_waits_for_its_child_is_reported_so(tmp_path: Path) -> None:
    server = Dispenser()
    async with waiting_for_a_child(server, tmp_path) as pool:
        pool.stop(SHUTDOWN)
        while len(server.outcomes) < 2:
            await asyncio.sleep(0.001)

        stopped = server.outcomes[1]
        assert isinstance(stopped, Failed)
        assert (stopped.error_type, stopped.message) == ("WorkerShutdown", f"{SHUTDOWN.message}; it had not begun")
        assert pool.jobs_interrupted == 1


async def test_the_lease_is_kept_while_a_job_waits_for_its_child_and_its_loss_ends_the_wait(tmp_path: Path) -> None:
    server = Dispenser()
    async with waiting_for_a_child(server, tmp_path, lease_ttl=0.9) as pool:
        await server.beaten.wait()
        assert pool.busy == 1

        server.refusal = StaleFence("409")
        while pool.busy:
            await asyncio.sleep(0.001)

        assert len(server.outcomes) == 1  # the first job's


async def test_a_job_that_has_waited_long_for_its_child_is_run_by_it(tmp_path: Path) -> None:
    server = Dispenser()
    async with waiting_for_a_child(server, tmp_path, lease_ttl=15.0) as pool:
        await asyncio.sleep(QUICK_JOB_TIME + 0.1)  # it was looked after by now
        os.kill(pool.zygote.pid, signal.SIGCONT)
        while len(server.outcomes) < 2:
            await asyncio.sleep(0.001)

    told = server.outcomes[1]
    assert isinstance(told, Failed)
    assert told.error_type == "InvalidParameters"  # which only its child can know


async def test_an_attempt_that_is_over_is_not_missed_by_the_watchdog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = asyncio.Event()

    async def hang(*_: object) -> None:
        hanging.set()
        await asyncio.Event().wait()

    server = Dispenser()
    async with waiting_for_a_child(server, tmp_path, lease_ttl=0.9) as pool:
        monkeypatch.setattr(WarmChild, "end", hang)
        server.refusal = StaleFence("409")
        await hanging.wait()

        (attempt,) = pool.attempts

        assert attempt.is_beating(boottime() + 1000.0)
        monkeypatch.undo()


async def test_a_bug_in_one_turn_ends_no_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Claimer.claim
    failed: list[int] = []

    async def claim_with_a_bug(claiming: Claimer) -> Job | None:
        if not failed:
            failed.append(1)
            raise RuntimeError("a bug")
        return await claim(claiming)

    monkeypatch.setattr(Claimer, "claim", claim_with_a_bug)
    server = Dispenser()
    with structlog.testing.capture_logs() as logged:
        async with waiting_for_a_child(server, tmp_path):
            assert failed

    assert "turn failed" in [line["event"] for line in logged]


class Waiter:
    """A job server whose first claim brings a job once it is told to, and whose others bring none."""

    def __init__(self, first: Job) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.asks_again = asyncio.Event()
        self.may_answer = asyncio.Event()
        self._first = first

    async def claim(self, actions: Sequence[str], **_: object) -> Job:
        self.asked.append(tuple(actions))
        if len(self.asked) > 1:
            self.asks_again.set()
            await asyncio.Event().wait()
        await self.may_answer.wait()
        return self._first

    async def heartbeat(self, *_: object, **__: object) -> Directive:
        return Directive.CONTINUE

    async def lease_length(self, _: Fence) -> None: ...
    async def complete(self, _: Fence, __: Outcome) -> None: ...
    async def send_events(self, _: Fence, __: Sequence[Event]) -> None: ...
    async def is_settled(self, _: Fence) -> bool:
        return True


CAPPED = """
    import time
    from supervisor import handler

    @handler("first", max_concurrent=1)
    def first() -> None:
        time.sleep(3600)

    @handler("second", max_concurrent=1)
    def second() -> None:
        pass
"""


async def test_a_job_that_comes_makes_room_for_what_else_its_claim_has_asked_for(tmp_path: Path) -> None:
    server = Waiter(a_job("first"))
    async with world(module(tmp_path / "handlers", CAPPED)) as here:
        pool = pool_of(here, server, tmp_path, workers=2)
        pool._poll_limit._window.allowed = 2  # jobs have come before
        running = asyncio.create_task(pool.run())
        async with asyncio.timeout(GENEROUS):
            while pool._capacity is None:  # the other slot has nothing to ask for
                await asyncio.sleep(0.001)

            server.may_answer.set()
            await server.asks_again.wait()

        assert server.asked == [("first", "second"), ("second",)]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


LITTERING = """
    import time
    from pathlib import Path
    from supervisor import Context, handler

    @handler("only", max_concurrent=1)
    def only(context: Context, until: str = "/") -> str:
        (context.workdir / "file").write_text("x")
        while not Path(until).exists():
            time.sleep(0.001)
        return str(context.workdir)
"""


class Shelf:
    """A job server with so many jobs of the action `only`, each of which is claimed when it is asked for."""

    def __init__(self, jobs: int, **parameters: str) -> None:
        self.outcomes: list[Outcome] = []
        self.changed = asyncio.Event()
        self.claims = 0
        self._left = [replace(a_job("only", **parameters), job_id=f"job_{number}") for number in range(jobs)]

    async def claim(self, *_: object, **__: object) -> Job:
        self.claims += 1
        self.changed.set()
        if not self._left:
            await asyncio.Event().wait()
        return self._left.pop()

    async def complete(self, _: Fence, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.changed.set()

    async def until(self, *, outcomes: int = 0, claims: int = 0) -> None:
        async with asyncio.timeout(GENEROUS):
            while len(self.outcomes) < outcomes or self.claims < claims:
                self.changed.clear()
                await self.changed.wait()

    async def heartbeat(self, *_: object, **__: object) -> Directive:
        return Directive.CONTINUE

    async def lease_length(self, _: Fence) -> None: ...
    async def send_events(self, _: Fence, __: Sequence[Event]) -> None: ...
    async def is_settled(self, _: Fence) -> bool:
        return True


@asynccontextmanager
async def littering(server: Shelf, state: Path, *, workers: int) -> AsyncIterator[Pool]:
    async with world(module(state / "handlers", LITTERING)) as here:
        pool = pool_of(here, server, state, workers=workers)
        running = asyncio.create_task(pool.run())
        yield pool
        pool.drain()
        await running


async def test_nobody_waits_for_the_folder_of_a_job_to_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()
    monkeypatch.setattr(slot, "remove_tree", lambda path: may_go_on.wait(GENEROUS) and remove_tree(path))
    may_end = tmp_path / "may end"
    server = Shelf(2, until=str(may_end))
    try:
        async with littering(server, tmp_path, workers=2) as pool, asyncio.timeout(GENEROUS):
            while pool._capacity is None:  # the other slot has nothing to ask for
                await asyncio.sleep(0.001)
            may_end.touch()

            await server.until(outcomes=2)  # the second one by the other slot, while the first one cleans

            assert pool.stall_reason(0.0) is None
            may_go_on.set()
    finally:
        may_go_on.set()


async def test_a_folder_that_cannot_be_removed_is_left_and_the_next_job_gets_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(slot, "remove_tree", refuse)
    server = Shelf(2)
    with structlog.testing.capture_logs() as logged:
        async with littering(server, tmp_path, workers=1):
            await server.until(outcomes=2)

    folders = [line["folder"] for line in logged if "cannot be removed" in line["event"]]
    assert server.outcomes == [Succeeded(base64.b64encode(json.dumps(folder).encode())) for folder in folders]
    assert folders[0] == str(tmp_path / "1")
    assert folders[1].startswith(str(tmp_path / "1-"))


async def test_a_child_that_dies_on_its_way_to_its_job_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child_for, killed = WarmChild.get_for, []

    async def die_on_the_way(berth: WarmChild, limits: Limits) -> Child:
        child = await child_for(berth, limits)
        if not killed:
            killed.append(child.pid)
            child.kill_now()
            while child.is_idle:  # its exit is seen before whoever waits for it is woken
                await asyncio.sleep(0)
        return child

    monkeypatch.setattr(WarmChild, "get_for", die_on_the_way)
    monkeypatch.setattr(WarmChild, "ready_for", lambda *_: None)
    server = Shelf(1)
    async with littering(server, tmp_path, workers=1):
        await server.until(outcomes=1)

    assert killed
    assert isinstance(server.outcomes[0], Succeeded)
