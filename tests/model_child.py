"""A child without a process: does what its story says, and shows an attempt what `process.child.Child` would show."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from supervisor.ipc.messages import Run
from supervisor.job import Blob, Event, Failed, Outcome, Succeeded
from supervisor.linux.exit_status import ExitReport, ExitStatus
from supervisor.process.exit_watch import ChildDied
from supervisor.process.job_channel import JobListener, JobReply
from tests.model_story import ChildStory, Ends, OnTerminate
from tests.model_witness import Witness

STOPPED = Failed("Cancelled", "the handler was asked to stop")


class ScriptedChild:
    """Runs one job."""

    def __init__(self, story: ChildStory, witness: Witness) -> None:
        self.pid = 4711
        self.is_idle = True
        self.is_busy = False
        self.exit_report: ExitReport | None = None
        self._story = story
        self._witness = witness
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Future[JobReply] = self._loop.create_future()
        self._exited = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []
        self._listener: JobListener | None = None
        self._was_terminated = False

    def set_memory_limit(self, _: int) -> bool:
        return False

    async def run(self, _: Run, listener: JobListener) -> JobReply:
        self.is_idle = False
        self.is_busy = True
        self._listener = listener
        self._witness.handler_runs = True
        for number, after in enumerate(self._story.emits_after):
            self._later(after, lambda number=number: self._emit(number))
        if self._story.ends is not Ends.HANGS:
            self._later(self._story.ends_after, self._end)
        try:
            told = await self._told
        finally:
            self._listener = None
        self._witness.saw_answer()
        return told

    async def ensure_picked_up(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def write_stack(self, within: float) -> bool:
        await asyncio.sleep(within)
        return False

    def terminate(self) -> None:
        if not self._witness.handler_runs or self._was_terminated:
            return
        self._was_terminated = True
        match self._story.on_terminate:
            case OnTerminate.STOPS:
                self._later(self._story.stops_after, lambda: self._answer(STOPPED))
            case OnTerminate.SUCCEEDS:
                self._later(self._story.stops_after, lambda: self._answer(Succeeded(b"YWxs")))

    def resend_sigterm(self) -> None:
        """It is asked already."""

    async def capture_stop_stack(self, within: float) -> None:
        await asyncio.sleep(within)

    def kill_now(self) -> None:
        self._silence()
        if self.exit_report is None:
            self._loop.call_later(self._story.dies_after, self._record_exit, ExitStatus(0, 9, 0, 0.0))

    async def kill(self) -> None:
        self.kill_now()
        await self._exited.wait()

    def _later(self, after: float, what: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(after, what))

    def _emit(self, number: int) -> None:
        event = Event("progress" if number in self._story.progress else "tick", str(number).encode())
        if self._listener is not None:
            self._witness.emitted.append(event)
            self._listener.on_event(event)

    def _end(self) -> None:
        match self._story.ends:
            case Ends.SUCCEEDED:
                self._answer(Succeeded(b"YWxs"))
            case Ends.SUCCEEDED_WITH_BLOB:
                self._answer(Succeeded(_blob(b"YWxs" * 100)))
            case Ends.FAILED:
                failed = Failed("ValueError", "wrong")
                self._witness.saw_failure_of_its_own(failed)
                self._answer(failed)
            case Ends.CRASHED:
                self._silence()
                self._record_exit(ExitStatus(1, 0, 0, 0.0))

    def _answer(self, outcome: Outcome) -> None:
        self._silence()
        self.is_idle = True
        self.is_busy = False
        if not self._told.done():
            self._told.set_result(JobReply(outcome, self._story.is_reusable))
        elif isinstance(outcome, Succeeded) and isinstance(outcome.result, Blob):
            outcome.result.close()

    def _silence(self) -> None:
        self._witness.handler_runs = False
        for timer in self._timers:
            timer.cancel()

    def _record_exit(self, how: ExitStatus) -> None:
        self.is_idle = self.is_busy = False
        self.exit_report = self.exit_report or ExitReport(how, str(how), "", [])
        self._exited.set()
        if not self._told.done():
            self._told.set_exception(ChildDied(str(how)))
            self._told.exception()  # whoever ran it may be gone


def _blob(content: bytes) -> Blob:
    descriptor = os.memfd_create("result", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    return Blob(descriptor, len(content))
