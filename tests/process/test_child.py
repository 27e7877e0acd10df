"""A child runs one job after the other, and its exit is always reported completely."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import json
import os
import re
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from supervisor.child.child_main import OOM_SCORE
from supervisor.ipc.messages import ChildMessage, EventEmitted, Finished, Forked, Logged, Ready, Run
from supervisor.ipc.wire import encode
from supervisor.job import Blob, Event, Failed, Succeeded
from supervisor.linux.exit_status import ExitReport
from supervisor.linux.syscalls import bytes_waiting, children_of
from supervisor.process import job_channel, pipe
from supervisor.process.child import Child, ChildState
from supervisor.process.child_channels import ChildChannels
from supervisor.process.exit_watch import ChildDied, ChildUnkillable
from supervisor.process.job_channel import JobReply
from supervisor.process.zygote import StartFailed
from tests.freezer import frozen, needs_a_freezer
from tests.harness import GENEROUS, is_alive
from tests.hoard import hoard
from tests.process_world import Heard, a_job, descriptors_left, module, run, world


def value_of(told: JobReply) -> Any:
    assert isinstance(told.outcome, Succeeded), told
    assert isinstance(told.outcome.result, bytes)
    return json.loads(base64.b64decode(told.outcome.result))


def blob_of(told: JobReply) -> Blob:
    assert isinstance(told.outcome, Succeeded), told
    assert isinstance(told.outcome.result, Blob)
    return told.outcome.result


async def stopped(child: Child, action: str, **parameters: Any) -> JobReply:
    """What is told of a job that is asked to stop once it is at work."""
    heard = Heard()
    job = asyncio.create_task(run(child, action, heard, **parameters))
    await heard.pids()
    child.terminate()
    return await job


async def death_of(child: Child, action: str, **parameters: Any) -> ExitReport:
    with pytest.raises(ChildDied) as caught:
        await run(child, action, **parameters)
    assert child.exit_report is not None
    assert str(caught.value) == child.exit_report.reason
    return child.exit_report


# Birth


async def test_a_child_that_is_ready_is_idle_and_soon_our_own() -> None:
    async with world() as here:
        child = await here.child()

        assert child.is_idle
        await until(lambda: child.pid in children_of(os.getpid()))
        assert repr(child) == f"<Child idle pid {child.pid}>"


async def test_kernel_attributes_of_a_child() -> None:
    async with world() as here:
        child = await here.child()

        told = value_of(await run(child, "kinship"))

    assert told == {
        "pdeathsig": signal.SIGKILL,
        "subreaper": 1,
        "pid": child.pid,
        "parent": os.getpid(),
        "session": child.pid,
        "group": child.pid,
    }


async def test_the_oom_killer_prefers_a_child_to_the_supervisor() -> None:
    async with world() as here:
        child = await here.child()

        scores = [int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (child.pid, os.getpid())]

    assert scores[0] == OOM_SCORE > scores[1]


@pytest.mark.parametrize(
    "name", ["KeyboardInterrupt", "GeneratorExit", "SystemExit", "BaseException", "RecursionError"]
)
async def test_whatever_a_handler_raises_is_a_failure_with_its_name(name: str) -> None:
    async with world() as here:
        child = await here.child()
        told = await run(child, "raises", name=name)
        after = await run(child, "echo")

    assert isinstance(told.outcome, Failed)
    assert told.outcome.error_type == name
    assert isinstance(after.outcome, Succeeded)


async def test_a_class_name_of_any_length_is_a_short_error_type() -> None:
    async with world() as here:
        told = await run(await here.child(), "raise-new", name="Long" * 1000)

    assert isinstance(told.outcome, Failed)
    assert told.outcome.error_type == "Long" * 16
    assert told.outcome.message.startswith("of a new class")


async def test_a_child_has_its_outlets_its_stack_file_its_pipe_a_reserve_and_nothing_else() -> None:
    async with world() as here:
        told = value_of(await run(await here.child(), "descriptors"))

    kinds = sorted((number, target.partition(":")[0]) for number, target in told.items())
    assert kinds[:3] == [("0", "/dev/null"), ("1", "pipe"), ("2", "pipe")]
    assert sorted(kind for _, kind in kinds[3:]) == ["/dev/null", "/memfd", "socket"]


async def test_a_child_that_there_are_no_descriptors_for_is_a_failed_start_and_leaves_none_open() -> None:
    async with world() as here:
        for spare in range(7):
            with (
                descriptors_left(spare),
                pytest.raises(StartFailed, match="no descriptors for a child: Too many open files"),
            ):
                await Child.start(here.zygote, here.reaper)

        assert (await here.child()).is_idle


async def test_a_start_that_is_cancelled_twice_leaves_no_child() -> None:
    async with world() as here:
        others = set(children_of(os.getpid()))  # the zygote, and what earlier tests have left to be reaped
        start = asyncio.create_task(Child.start(here.zygote, here.reaper))
        for _ in range(2):
            await asyncio.sleep(0)
            start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start

        assert not [member for member in here.reaper._members if isinstance(member, Child)]
        assert set(children_of(os.getpid())) <= others


async def test_a_zygote_that_hangs_in_a_fork_is_given_up(tmp_path: Path) -> None:
    module(tmp_path, "import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep(3600))")
    async with world(tmp_path) as here:
        with pytest.raises(StartFailed, match="not ready within"):
            await Child.start(here.zygote, here.reaper, deadline=0.3)

        async with asyncio.timeout(GENEROUS):
            assert await here.zygote.exited() == -signal.SIGKILL
        await here.reaper.kill_orphans()


async def test_programs_that_a_handler_starts_inherit_no_pipe() -> None:
    async with world() as here:
        assert value_of(await run(await here.child(), "inherited")) == ["0", "1", "2"]


async def test_many_children_at_once() -> None:
    async with world() as here:
        children = await asyncio.gather(*(here.child() for _ in range(40)))

        pids = [value_of(told) for told in await asyncio.gather(*(run(child, "pid") for child in children))]
        held = [value_of(told) for told in await asyncio.gather(*(run(child, "descriptors") for child in children))]

    assert pids == [child.pid for child in children]
    assert {len(descriptors) for descriptors in held} == {6}  # nothing of those who were born beside it


async def test_a_child_may_be_ready_before_its_pid_is_told(tmp_path: Path) -> None:
    source = """
    import os, time
    from supervisor import handler
    handler("pid")(lambda: os.getpid())
    write = os.write
    os.write = lambda descriptor, data: (time.sleep(0.2), write(descriptor, data))
    """
    async with world(module(tmp_path, source)) as here:
        starting = asyncio.create_task(here.child())
        await until(lambda: any(isinstance(member, Child) and member._is_set_up for member in here.reaper._members))
        assert not starting.done()

        child = await starting
        assert value_of(await run(child, "pid")) == child.pid


@pytest.mark.parametrize(
    ("fork", "what", "reason"),
    [
        (1, "os._exit(9)", "could not be forked"),
        (2, "os._exit(9)", "a child exited with code 9"),
        (2, "os.kill(os.getpid(), 11)", "a child was killed by SIGSEGV"),
        (2, "signal.pause()", "a child was not ready within 0.3 s"),
    ],
)
async def test_a_child_that_does_not_come_up_is_told_with_its_reason(
    tmp_path: Path, fork: int, what: str, reason: str
) -> None:
    """Libraries may break in a fork; the first one is the process between zygote and child."""
    source = f"""
    import os, signal
    from supervisor import handler
    handler("a")(lambda: None)
    forks = 0
    def after_fork():
        global forks
        forks += 1
        if forks == {fork}:
            {what}
    os.register_at_fork(after_in_child=after_fork)
    """
    async with world(module(tmp_path, source)) as here:
        with pytest.raises(StartFailed) as caught:
            await here.child(deadline=0.3 if "0.3 s" in reason else GENEROUS)

        assert reason in str(caught.value)
        assert not any(isinstance(member, Child) for member in here.reaper._members)


@pytest.mark.parametrize("moment", [0.0, 0.001, 0.003, 0.006])
async def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing(moment: float) -> None:
    async with world() as here:
        start = asyncio.create_task(here.child())
        asyncio.get_running_loop().call_later(moment, start.cancel)

        await asyncio.wait([start], timeout=GENEROUS)

        assert start.done()
        if not start.cancelled():
            await start.result().kill()
        assert not any(isinstance(member, Child) for member in here.reaper._members)


async def until(reached: Callable[[], bool]) -> None:
    """For what the kernel only tells when it is asked."""
    async with asyncio.timeout(GENEROUS):
        while not reached():
            await asyncio.sleep(0)


def waiting(child: Child) -> int:
    """How many bytes the child has said and nobody has read."""
    return bytes_waiting(child._pipe._socket.fileno())


async def test_a_child_that_says_ready_to_nobody_can_be_killed() -> None:
    async with world() as here:
        child = Child(here.zygote, here.reaper, ChildChannels.open())
        child.pause()
        await until(lambda: waiting(child) >= len(encode(Forked(1))) + len(encode(Ready())))

        child._ready.cancel()  # as a cancelled `start` does
        async with asyncio.timeout(GENEROUS):
            await child.kill()

        assert child.exit_report is not None


async def test_a_child_that_is_killed_before_it_is_our_own_is_reaped(tmp_path: Path) -> None:
    source = """
    import os, time
    from supervisor import handler
    handler("a")(lambda: None)
    leave = os._exit
    os._exit = lambda status: (time.sleep(0.2), leave(status))
    """
    async with world(module(tmp_path, source)) as here:
        child = Child(here.zygote, here.reaper, ChildChannels.open())
        await until(lambda: child.pid is not None)
        assert child.pid not in children_of(os.getpid())

        async with asyncio.timeout(GENEROUS):
            await child.kill()

        assert child.exit_report is not None
        assert child.exit_report.exit.signal == signal.SIGKILL


# Work


async def test_a_job_is_run_and_its_result_comes_back_as_it_is() -> None:
    async with world() as here:
        told = await run(await here.child(), "echo", name="ä", ratio=0.1)

    assert value_of(told) == {"name": "ä", "ratio": 0.1}
    assert told.reusable


async def test_two_jobs_one_after_the_other_run_in_one_process() -> None:
    async with world() as here:
        child = await here.child()

        pids = [value_of(await run(child, "pid")) for _ in range(2)]

        assert pids == [child.pid, child.pid]
        assert child.is_idle


async def test_a_failed_job_leaves_the_child_warm() -> None:
    async with world() as here:
        child = await here.child()

        told = await run(child, "raise")

        assert isinstance(told.outcome, Failed)
        assert told.reusable
        assert value_of(await run(child, "pid")) == child.pid


async def test_what_is_too_big_for_a_frame_travels_beside_it() -> None:
    async with world() as here:
        child = await here.child()

        told = await run(child, "echo", text="x" * 5_000_000)

        assert isinstance(told.outcome, Succeeded)
        assert isinstance(told.outcome.result, Blob)
        blob = told.outcome.result
        assert json.loads(base64.b64decode(os.pread(blob.descriptor, blob.size, 0))) == {"text": "x" * 5_000_000}
        assert not os.get_inheritable(blob.descriptor)
        blob.close()


async def test_a_big_result_that_comes_when_nobody_waits_any_more_is_not_kept() -> None:
    async with world() as here:
        child = await here.child()
        running = asyncio.create_task(run(child, "echo", text="x" * 5_000_000))
        while not child.is_idle or not child.jobs:
            await asyncio.sleep(0)

        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running  # and `world` counts the descriptors that are left


async def test_what_has_travelled_beside_a_frame_is_not_kept() -> None:
    async with world() as here:
        child = await here.child()
        before = value_of(await run(child, "descriptors"))

        told = await run(child, "echo", text="x" * 5_000_000)
        after = value_of(await run(child, "descriptors"))
        blob_of(told).close()

    assert after == before


async def test_a_big_result_arrives_from_a_handler_that_has_used_up_all_descriptors() -> None:
    async with world() as here:
        told = await run(await here.child(), "spoils-then-much", what="descriptors")

        assert blob_of(told).size > 5_000_000
        assert not told.reusable
        blob_of(told).close()


async def test_a_big_result_that_cannot_be_handed_over_is_a_failure_that_says_why() -> None:
    async with world() as here:
        told = await run(await here.child(), "spoils-then-much", what="files")

    why = "the result of 4.77 MiB could not be handed over: File too large"
    assert told == JobReply(Failed("SupervisorError", why), reusable=False)


async def test_a_big_result_arrives_though_the_parent_has_used_up_all_descriptors() -> None:
    async with world() as here:
        child = await here.child()
        with descriptors_left(0):
            for _ in range(2):
                told = await run(child, "big-result", size=3_000_000)

                assert blob_of(told).size == 4_000_000
                assert told.reusable
                blob_of(told).close()


async def test_a_big_result_that_finds_no_room_comes_as_soon_as_there_is_some() -> None:
    async with world() as here:
        child, other = await here.child(), await here.child()
        with descriptors_left(0), capture_logs() as logged:
            first = await run(child, "big-result", size=3_000_000)  # takes what was kept for it
            logged.clear()
            running = asyncio.create_task(run(other, "big-result", size=6_000_000))
            async with asyncio.timeout(GENEROUS):
                while len(logged) < 2:
                    await asyncio.sleep(0.01)

            blob_of(first).close()
            second = await running

        assert blob_of(second).size == 8_000_000
        blob_of(second).close()


async def test_a_big_result_that_never_finds_room_is_a_failure_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_channel, "RESULT_RETRY_DELAYS", (0.0, 0.01))
    async with world() as here:
        child, other = await here.child(), await here.child()
        with descriptors_left(0):
            first = await run(child, "big-result", size=3_000_000)
            told = await run(other, "big-result", size=3_000_000)
        blob_of(first).close()
        after = await run(other, "big-result", size=3_000_000)
        blob_of(after).close()

    why = "the result could not be received: Too many open files; raise the supervisor's limit of open files"
    assert told == JobReply(Failed("SupervisorError", f"{why} (LimitNOFILE=)"), reusable=True)


async def test_a_child_that_dies_while_its_result_finds_no_room_has_died() -> None:
    async with world() as here:
        child, other = await here.child(), await here.child()
        with descriptors_left(0), capture_logs() as logged:
            first = await run(child, "big-result", size=3_000_000)
            logged.clear()
            running = asyncio.create_task(run(other, "big-result", size=3_000_000))
            async with asyncio.timeout(GENEROUS):
                while not logged:
                    await asyncio.sleep(0.01)

            other.kill_now()
            with pytest.raises(ChildDied, match="SIGKILL"):
                await running
        blob_of(first).close()


async def test_big_parameters_that_the_kernel_refuses_to_send_arrive_when_it_does() -> None:
    async with world() as here:
        child = await here.child()
        with hoard() as relent, capture_logs() as logged:
            running = asyncio.create_task(run(child, "digest", text="x" * 2_000_000))
            await until(lambda: bool(logged))

            relent()
            told = await running

    assert value_of(told) == hashlib.sha256(b"x" * 2_000_000).hexdigest()
    assert told.reusable


async def test_a_job_whose_parameters_are_never_sent_has_failed_and_not_killed_its_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipe, "SEND_RETRY_DELAYS", (0.0, 0.01))
    async with world() as here:
        child = await here.child()
        with hoard():
            told = await run(child, "digest", text="x" * 2_000_000)
        async with asyncio.timeout(GENEROUS):
            await child.wait()

    assert isinstance(told.outcome, Failed)
    assert told.outcome.error_type == "SupervisorError"
    assert told.outcome.message.startswith("the process could not be told what to do: Too many references")
    assert "(LimitNOFILE=)" in told.outcome.message
    assert not told.reusable
    assert child.exit_report is not None
    assert child.exit_report.exit.signal == signal.SIGKILL


async def test_a_big_result_that_the_kernel_refuses_to_send_arrives_when_it_does() -> None:
    async with world() as here:
        told = await run(await here.child(), "hoards-then-much", seconds=0.2)

        assert blob_of(told).size > 5_000_000
        blob_of(told).close()


async def test_a_big_result_that_is_never_sent_is_a_failure_that_says_why() -> None:
    async with world() as here:
        told = await run(await here.child(), "hoards-then-much", seconds=None)

    assert isinstance(told.outcome, Failed)
    why = "the result of 4.77 MiB could not be handed over: Too many references"
    assert (told.outcome.error_type, told.outcome.message[: len(why)]) == ("SupervisorError", why)
    assert "(LimitNOFILE=)" in told.outcome.message


@pytest.mark.parametrize("moment", [0.0, 0.001, 0.01, 0.1])
async def test_big_parameters_of_a_child_that_is_killed_are_not_kept(moment: float) -> None:
    async with world() as here:
        child = await here.child()
        running = asyncio.create_task(run(child, "echo", text="x" * 50_000_000))
        await asyncio.sleep(moment)

        child.kill_now()
        with contextlib.suppress(ChildDied):
            blob_of(await running).close()  # and `world` counts the descriptors that are left


async def test_big_parameters_for_a_child_that_is_dead_are_not_kept() -> None:
    async with world() as here:
        child = await here.child()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)  # and the loop does not know yet

        with pytest.raises(ChildDied):
            await run(child, "echo", text="x" * 5_000_000)


async def test_the_listener_hears_events_logs_and_lines() -> None:
    async with world() as here:
        child = await here.child()
        heard = Heard()

        await run(child, "emits", heard, count=1000)
        await run(child, "logs", heard)
        await run(child, "prints", heard, line="page 1")

    assert [json.loads(event.payload)["number"] for event in heard.events] == list(range(1000))
    assert heard.logged == [(30, "page 3 of the book is odd")]
    assert sorted(heard.lines) == ["page 1", "raw on descriptor 1", "raw on descriptor 2"]


async def test_what_a_forked_process_logs_is_heard_as_what_it_prints() -> None:
    async with world() as here:
        child, heard = await here.child(), Heard()

        await run(child, "logs-in-a-fork", heard)

    assert heard.logged == []
    assert heard.lines == ["WARNING: page 3 of the book is odd"]


async def test_a_paused_child_waits_in_its_emit_until_it_is_resumed() -> None:
    async with world() as here:
        child, heard = await here.child(), Heard()
        job = asyncio.create_task(run(child, "emits", heard, count=20_000))
        await heard.until(lambda: bool(heard.events))

        child.pause()
        before = len(heard.events)
        await asyncio.sleep(0)
        assert len(heard.events) == before
        child.resume()
        await job

    assert len(heard.events) == 20_000


async def test_a_child_that_is_asked_to_stop_cleans_up_and_says_so(tmp_path: Path) -> None:
    async with world() as here:
        child, heard = await here.child(), Heard()
        job = asyncio.create_task(run(child, "cleans-up", heard, note=str(tmp_path / "note")))
        await heard.pids()

        child.terminate()
        told = await job

    assert isinstance(told.outcome, Failed)
    assert told.outcome.error_type == "Cancelled"
    assert (tmp_path / "note").read_text() == "cleaned up"


@pytest.mark.parametrize(
    ("action", "parameters"), [("python-loop", {}), ("async-sleep", {"note": "/dev/null"}), ("async-group", {})]
)
async def test_a_handler_that_stops_when_it_is_asked_to_is_cancelled(action: str, parameters: dict[str, str]) -> None:
    async with world() as here:
        told = await stopped(await here.child(), action, **parameters)

    assert told.outcome == Failed("Cancelled", "the handler stopped when it was asked to")


async def test_a_cleanup_that_fails_beside_the_cancel_is_a_failure_of_its_own() -> None:
    async with world() as here:
        told = await stopped(await here.child(), "ends-in-a-group", message="half of it is left")

    assert isinstance(told.outcome, Failed)
    assert told.outcome.error_type == "BaseExceptionGroup"
    assert told.outcome.message.startswith("half of it is left (2 sub-exceptions)")


async def test_a_child_whose_handler_is_no_coroutine_is_stopped_without_asyncio() -> None:
    async with world() as here:
        child = await here.child()
        await stopped(child, "python-loop")

        assert value_of(await run(child, "has-loaded", module="asyncio")) is False


async def test_a_handler_that_cancels_itself_is_told_with_its_own_words() -> None:
    async with world() as here:
        told = await run(await here.child(), "raise-cancelled")

    assert isinstance(told.outcome, Failed)
    assert told.outcome.error_type == "Cancelled"
    assert told.outcome.message.startswith("on my own\n\nTraceback")


async def test_an_async_def_that_its_decorator_hides_is_told_as_such_and_nothing_is_printed() -> None:
    async with world() as here:
        child, heard = await here.child(), Heard()
        told = await run(child, "async-hidden", heard)
        await run(child, "prints", heard, line="the end")

    assert isinstance(told.outcome, Failed)
    assert told.outcome.error_type == "InvalidResult"
    assert told.outcome.message.endswith("if it is one already, another decorator hides that")
    assert sorted(heard.lines) == ["raw on descriptor 1", "raw on descriptor 2", "the end"]


async def test_a_stop_between_two_jobs_stops_neither() -> None:
    async with world() as here:
        child = await here.child()
        await run(child, "echo")

        child.terminate()

        assert value_of(await run(child, "pid")) == child.pid


async def test_what_a_job_changed_in_its_process_is_as_before_for_the_next() -> None:
    async with world() as here:
        child = await here.child()

        await run(child, "moves-away")

        assert value_of(await run(child, "where")) == [os.getcwd(), "job_1", "False"]


async def test_a_handler_knows_its_job_and_never_the_credential() -> None:
    async with world(MOBIUS_API_KEY="mbx_secret", PASSED="yes") as here:
        told = value_of(await run(await here.child(), "environment"))

    expected = {
        "MOBIUS_JOB_ID": "job_1",
        "MOBIUS_ATTEMPT": "1",
        "MOBIUS_WORKER_ID": "worker 1",
        "PASSED": "yes",
    }
    assert expected.items() <= told.items()
    assert not any("mbx_secret" in value for value in told.values())


async def test_a_child_whose_handler_left_processes_behind_takes_no_further_job() -> None:
    async with world() as here:
        child, heard = await here.child(), Heard()

        told = await run(child, "leaves-a-daemon", heard)

        assert value_of(told) == "done"
        assert not told.reusable
        assert not any(map(is_alive, set(await heard.pids()) - {child.pid}))


async def test_a_child_whose_handler_closed_its_output_takes_no_further_job() -> None:
    async with world() as here:
        told = await run(await here.child(), "closes-descriptors", first=1, last=3)

    assert not told.reusable


@pytest.mark.parametrize(
    ("how", "code", "printed"),
    [("returns", 0, ""), ("exits", 3, ""), ("raises", 1, "ValueError: in the other process")],
)
async def test_a_process_that_a_handler_forks_and_lets_return_says_nothing_for_its_child(
    how: str, code: int, printed: str
) -> None:
    async with world() as here:
        child, heard = await here.child(), Heard()

        told = await run(child, "forks-and-goes-on", heard, how=how)
        after = await run(child, "echo", said="after")

    assert value_of(told) == f"the real one, and the other has ended with {code}"
    assert value_of(after) == {"said": "after"}
    assert "".join(heard.lines[-1:]) == printed


async def test_a_process_that_a_coroutine_forks_and_lets_return_takes_nothing_from_its_loop() -> None:
    async with world() as here:
        child, heard = await here.child(), Heard()

        told = await run(child, "forks-in-a-coroutine", heard)

    assert value_of(told) == "a thread has woken it up"


async def test_a_process_that_a_handler_forks_is_ended_by_sigterm_also_in_its_cleanup() -> None:
    async with world() as here:
        child, heard = await here.child(), Heard()
        running = asyncio.create_task(run(child, "ends-a-process-in-its-cleanup", heard))
        await heard.pids()

        child.terminate()

        assert isinstance((await running).outcome, Failed)
        assert heard.lines == ["it ended with -15"]


async def test_a_stop_is_not_lost_in_a_fork() -> None:
    async with world() as here:
        for _ in range(8):
            child, heard = await here.child(), Heard()
            running = asyncio.create_task(run(child, "forks-without-end", heard))
            await heard.pids()

            child.terminate()

            assert (await running).outcome == Failed("Cancelled", "the handler stopped when it was asked to")
            await child.kill()


@pytest.mark.parametrize("action", ["forgets-shared-memory", "tidies-up-shared-memory"])
async def test_shared_memory_that_a_handler_forgets_is_removed_and_its_child_takes_no_further_job(action: str) -> None:
    async with world() as here:
        child, heard = await here.child(), Heard()

        told = await run(child, action, heard)

        assert not told.reusable  # a library in it may have kept what is removed now
        assert not (Path("/dev/shm") / value_of(told)).exists()
        assert not any("killed" in line for line in heard.lines)


async def test_a_stop_is_not_taken_for_the_end_of_a_wait() -> None:
    async with world() as here:
        child, heard = await here.child(), Heard()
        running = asyncio.create_task(run(child, "waits-in-c", heard, seconds=3600))
        await heard.pids()

        child.terminate()

        assert (await running).outcome == Failed("Cancelled", "the handler stopped when it was asked to")


async def test_a_dump_that_a_handler_has_put_off_does_not_end_the_next_job() -> None:
    async with world() as here:
        child = await here.child()

        await run(child, "spoils", what="dump-later")

        assert (await run(child, "computes", seconds=0.6)).outcome == Succeeded(None)


async def test_a_child_whose_folder_is_removed_goes_on_and_so_do_those_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (release := tmp_path / "release").mkdir()
    monkeypatch.chdir(release)
    async with world() as here:
        old, heard = await here.child(), Heard()
        release.rmdir()
        new = await here.child()

        assert value_of(await run(old, "pid", heard)) == old.pid
        assert value_of(await run(new, "pid")) == new.pid

    assert heard.lines == [f"[the folder {release} cannot be entered: No such file or directory; jobs run in /]"]


async def test_a_thread_that_goes_on_printing_does_not_keep_the_loop() -> None:
    async with world() as here:
        told = await run(await here.child(), "prints-without-end-beside")

    assert value_of(told) == "done"
    assert not told.reusable


async def test_a_child_whose_handler_left_a_thread_takes_no_further_job_and_says_so() -> None:
    async with world() as here:
        heard = Heard()

        told = await run(await here.child(), "leaves-a-thread", heard)

    assert (value_of(told), told.reusable) == ("done", False)
    assert heard.lines == ["[the handler left 1 thread running: its process takes no further job]"]


# Death


@pytest.mark.parametrize(
    ("action", "parameters", "reason", "last_line"),
    [
        ("die-by-signal", {"number": signal.SIGKILL}, "was killed by SIGKILL", "about to die"),
        ("die-by-signal", {"number": signal.SIGABRT}, "was killed by SIGABRT", None),
        ("die-by-exit", {"code": 0}, "exited with code 0", None),
        ("die-by-exit", {"code": 9}, "exited with code 9", None),
        ("segfault", {}, "was killed by SIGSEGV", None),
    ],
)
async def test_a_death_is_told_with_its_reason_and_the_last_output(
    action: str, parameters: dict[str, int], reason: str, last_line: str | None
) -> None:
    async with world() as here:
        died = await death_of(await here.child(), action, **parameters)

    assert died.reason == str(died.exit) == reason
    assert last_line is None or died.last_lines[-1] == last_line
    assert died.exit.peak_memory > 2**20


async def test_the_output_of_the_job_before_is_not_part_of_a_death() -> None:
    async with world() as here:
        child = await here.child()
        await run(child, "prints", line="the job before")

        died = await death_of(child, "die-by-exit", code=3)

    assert died.last_lines == []


async def test_a_death_is_told_with_the_processor_time_of_its_own_job() -> None:
    async with world() as here:
        child = await here.child()
        await run(child, "computes", seconds=0.3)

        died = await death_of(child, "die-by-exit", code=3)

    assert died.exit.cpu < 0.25


async def test_one_that_stops_when_it_is_asked_to_is_told_with_the_processor_time_of_its_job() -> None:
    async with world() as here:
        child = await here.child()
        await run(child, "echo", said="a job before")
        running = asyncio.create_task(run(child, "computes", seconds=3600.0))
        await until(lambda: child.is_busy and (child.cpu_seconds or 0.0) > 0.1)

        child.terminate()
        told = await running
        await child.kill()

    assert told.outcome == Failed("Cancelled", "the handler stopped when it was asked to")
    assert child.exit_report is not None
    assert 0.1 < child.exit_report.exit.cpu < GENEROUS


async def test_the_stack_of_a_coroutine_that_waits_shows_for_what() -> None:
    async with world() as here:
        child, heard = await here.child(), Heard()
        running = asyncio.create_task(run(child, "async-waits", heard))
        await heard.pids()

        # It may not have come to its wait yet, or have written a part only.
        while not _shows_the_wait(await child.stack()):
            pass
        child.terminate()
        await running
        await child.kill()

    assert child.exit_report is not None
    assert _shows_the_wait(child.exit_report.stack)
    assert "supervisor/child/" not in child.exit_report.stack


def _shows_the_wait(stack: str) -> bool:
    """Whether both tasks of the handler are there, in the form of `faulthandler`."""
    inner = re.search(r"\n\S+ \(most recent call first\):\n.* in sleep\n.* in waits_for_another\n?", stack)
    outer = re.search(r"\n\S+ \(most recent call first\):\n(.*\n)+?.* in async_waits\n", stack)
    return inner is not None and outer is not None


async def test_a_job_after_a_coroutine_that_wrote_its_stack_has_one_of_its_own() -> None:
    async with world() as here:
        child = await here.child()
        await run(child, "async-echo", text="a job before")
        running = asyncio.create_task(run(child, "computes", seconds=3600.0))
        await until(lambda: child.is_busy and (child.cpu_seconds or 0.0) > 0.01)

        stack = await child.stack()
        await child.kill()
        with pytest.raises(ChildDied):
            await running

    assert "in computes" in stack
    assert "Task-" not in stack


async def test_a_child_that_dies_between_two_jobs_is_not_idle_any_more() -> None:
    async with world() as here:
        child = await here.child()
        assert child.pid is not None

        os.kill(child.pid, signal.SIGKILL)
        async with asyncio.timeout(GENEROUS):
            await child.wait()

        assert not child.is_idle
        assert not is_alive(child.pid)
        assert repr(child) == f"<Child exited pid {child.pid}>"


@pytest.mark.parametrize(
    "action",
    ["python-loop", "c-call", "ignores-sigterm", "with-subprocess", "with-own-session", "with-daemon", "stops-itself"],
)
async def test_a_kill_ends_the_child_and_all_that_it_started(action: str) -> None:
    async with world() as here:
        child, heard = await here.child(), Heard()
        job = asyncio.create_task(run(child, action, heard))
        pids = await heard.pids()

        async with asyncio.timeout(GENEROUS):
            await child.kill()

        assert not any(map(is_alive, pids))
        assert not set(pids) & set(children_of(os.getpid()))
        with pytest.raises(ChildDied, match="was killed by SIGKILL"):
            await job


async def test_killing_twice_is_as_good_as_once() -> None:
    async with world() as here:
        child = await here.child()

        await asyncio.gather(child.kill(), child.kill())
        await child.kill()
        child.terminate()
        child.kill_now()

        assert child.exit_report is not None


async def test_a_child_whose_job_was_cut_short_in_mid_sentence_can_be_killed() -> None:
    async with world() as here:
        child, heard = await here.child(), Heard()
        job = asyncio.create_task(child.run(Run(a_job("emits", count=10**9), "w", "/tmp/nowhere"), heard))
        await heard.until(lambda: bool(heard.events))
        child.pause()
        await until(lambda: waiting(child) > 0)  # there is more in the pipe than was heard

        job.cancel()
        await asyncio.wait([job])
        async with asyncio.timeout(GENEROUS):
            await child.kill()

        assert job.cancelled()
        assert child.exit_report is not None
        assert child.exit_report.exit.signal == signal.SIGKILL


async def test_a_big_result_that_nobody_waits_for_any_more_is_closed() -> None:
    async with world() as here:
        child = await here.child()
        job = asyncio.create_task(child.run(Run(a_job("big-result", size=3_000_000), "w", "/tmp/nowhere"), Heard()))
        await asyncio.sleep(0)

        job.cancel()
        await asyncio.wait([job])

    assert child.exit_report is not None  # and `world` counts the descriptors that are left


async def test_what_a_dead_child_left_behind_cannot_keep_the_loop_by_printing() -> None:
    async with world() as here:
        child = await here.child()

        died = await death_of(child, "dies-and-leaves-a-printer")
        async with asyncio.timeout(GENEROUS):
            await child.kill()

        assert died.exit.code == 3


# Breaches


def frame(message: ChildMessage) -> str:
    return encode(message).hex()


@pytest.mark.parametrize(
    "forged",
    [
        b"GET / HTTP/1.1\r\n\r\n".hex(),
        struct.pack(">I", 2**31).hex(),
        "00000001c1",
        frame(Ready()),
        frame(Forked(1)),
        frame(Finished(attached=True)),
    ],
)
async def test_a_child_that_breaks_the_protocol_is_killed(forged: str) -> None:
    async with world() as here:
        died = await death_of(await here.child(), "forges", frame=forged)

    assert died.reason.startswith("broke the protocol: it ")


async def test_garbage_on_every_descriptor_harms_nobody_else() -> None:
    async with world() as here:
        one, other = await here.child(), await here.child()

        died = await death_of(one, "garbage-on-every-descriptor")

        assert "broke the protocol" in died.reason
        assert (await run(other, "echo")).reusable


@pytest.mark.parametrize("more", [EventEmitted(Event("tick", b"{}")), Logged(30, "more"), Finished(b"e30="), Ready()])
async def test_whoever_talks_after_the_end_of_its_job_is_killed(more: ChildMessage) -> None:
    async with world() as here:
        child = await here.child()

        told = await run(child, "forges", frame=frame(Finished(b"e30=")) + frame(more))
        async with asyncio.timeout(GENEROUS):
            await child.wait()

    assert told.outcome == Succeeded(b"e30=")
    assert not child.is_idle


async def test_a_handler_that_closes_the_pipe_has_died_of_it() -> None:
    async with world() as here:
        died = await death_of(await here.child(), "closes-descriptors", first=3, last=64)

    assert died.reason == "exited with code 1"
    assert "closed the pipe" in died.last_lines[-1]


async def test_a_child_that_closed_its_pipe_and_goes_on_is_killed_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("supervisor.process.child.EXIT_AFTER_CLOSE_TIMEOUT", 0.1)
    async with world() as here:
        died = await death_of(await here.child(), "closes-the-pipe-and-goes-on")

    assert died.reason == "closed its pipe to the supervisor and went on"
    assert died.exit.signal == signal.SIGKILL


@pytest.mark.parametrize("says_more", [True, False])
async def test_what_cannot_be_taken_in_ends_its_child_and_is_never_waited_for(*, says_more: bool) -> None:
    class Broken(Heard):
        def on_log(self, level: int, *_: str) -> None:
            raise KeyError(level)

    both = frame(Logged(25, "odd")) + (frame(Finished(b"e30=")) if says_more else "")
    async with world() as here:
        child = await here.child()
        with pytest.raises(ChildDied, match=r"could not take in \(KeyError: 25\)"):
            await run(child, "forges", Broken(), frame=both)


async def test_a_line_that_cannot_be_taken_in_costs_nothing_but_itself() -> None:
    class Broken(Heard):
        def on_line(self, line: str) -> None:
            raise KeyError(line)

    async with world() as here:
        told = await run(await here.child(), "prints", Broken(), line="odd")

    assert isinstance(told.outcome, Succeeded)


async def test_a_child_that_cannot_be_watched_is_a_failed_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(_: int) -> int:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    async with world() as here:
        with monkeypatch.context() as broken:
            broken.setattr("supervisor.process.exit_watch.os.pidfd_open", no_room)
            child = Child(here.zygote, here.reaper, ChildChannels.open())
            with pytest.raises(StartFailed, match="cannot be watched: Too many open files in system"):
                await child._ready
        await child.kill()  # and `world` counts the descriptors that are left

        assert (await here.child()).is_idle


@pytest.mark.root("only root can freeze processes")
@needs_a_freezer
async def test_a_child_that_outlives_its_kill_is_written_off_and_reaped_when_it_ends_after_all() -> None:
    async with world() as here:
        here.reaper.kill_timeout = 0.1
        child, heard = await here.child(), Heard()
        job = asyncio.create_task(run(child, "python-loop", heard))
        (pid,) = await heard.pids()

        with frozen(pid):
            async with asyncio.timeout(GENEROUS):
                await child.kill()
                await child.kill()
            with pytest.raises(ChildUnkillable):
                await job
            assert is_alive(pid)
            assert child in here.reaper._members  # and no stray
            assert (child.state, child.exit_report) == (ChildState.EXITED, None)
        await until(lambda: child not in here.reaper._members)

        assert pid not in children_of(os.getpid())


async def test_a_child_that_stands_still_can_be_killed() -> None:
    async with world() as here:
        child = await here.child()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGSTOP)

        async with asyncio.timeout(GENEROUS):
            await child.kill()

        assert not is_alive(child.pid)


async def test_a_child_that_was_left_paused_by_one_job_is_heard_in_the_next() -> None:
    async with world() as here:
        child = await here.child()
        await run(child, "nothing")
        child.pause()

        assert (await run(child, "nothing")).reusable
