"""One child process, from fork to exit.  Runs in the parent.

A `Child` owns the message pipe, the output, the stack file and the exit report.  Its `ExitWatch` owns the pid and
reaps the child; its `JobChannel` handles the messages about jobs.

    STARTING ──Ready→ IDLE ──run→ BUSY ──Finished→ IDLE        any ──exit→ EXITED
"""

from __future__ import annotations

import asyncio
import enum
import signal
from collections.abc import Awaitable, Coroutine
from typing import Any

import structlog

from supervisor.concurrency.helpers import shielded
from supervisor.ipc.messages import ChildMessage, Finished, Forked, Ready, Run
from supervisor.ipc.wire import SendTimeout, WireError
from supervisor.linux.exit_status import ExitReport, ExitStatus
from supervisor.linux.syscalls import kill_group
from supervisor.process.child_channels import ChildChannels
from supervisor.process.exit_watch import NEVER_STARTED, ChildDied, ChildUnkillable, ExitWatch
from supervisor.process.job_channel import JobChannel, JobListener, JobReply, MessageHandlingError
from supervisor.process.output import Output
from supervisor.process.pipe import Pipe
from supervisor.process.reaper import Reaper
from supervisor.process.shared_memory import JobSegments
from supervisor.process.zygote import StartFailed, Zygote

log = structlog.get_logger("child")

PICK_UP_TIMEOUT = 10.0
"""Seconds in which a child must read the order for its job; it takes a millisecond."""
EXIT_AFTER_CLOSE_TIMEOUT = 2.0
"""Seconds between the end of a child's pipe and SIGKILL."""
STACK_TIMEOUT = 2.0
"""Seconds to wait for a child's stack; a child that waits for a disk or is stopped does not write it."""


class ChildState(enum.Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    EXITED = "exited"


class Child:
    """A process that runs one job at a time."""

    def __init__(self, zygote: Zygote, reaper: Reaper, channels: ChildChannels) -> None:
        self.zygote = zygote
        self.state = ChildState.STARTING
        self.exit_report: ExitReport | None = None
        """None until the child has exited."""
        self._loop = asyncio.get_running_loop()
        self._reaper = reaper
        self._exit_watch = ExitWatch(
            channels.reserved, on_exit=self._on_exit, on_reaped=self._record_exit, on_unkillable=self._on_unkillable
        )
        self._fault = ""
        """The child's violation for which it is killed, or the reason why it could not start."""
        self._is_set_up = False  # the child's `Ready` may arrive before the intermediate process has sent the pid
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._scan: asyncio.Task[None] | None = None
        self._segments = JobSegments()
        self._output = Output(channels.our_output, self._on_line)
        self._stack = channels.our_stack
        self._pipe: Pipe[ChildMessage] = Pipe(channels.our_pipe, ChildMessage, self._on_message, self._on_end)
        self._job_channel = JobChannel(self._pipe, reaper.spare_descriptor, self._on_job_over)
        self._cgroup = reaper.new_cgroup()
        reaper.register(self)
        with channels.their_pipe:
            zygote.fork(channels.their_pipe, channels.their_output, channels.their_stack, self._cgroup.path)

    @classmethod
    async def start(cls, zygote: Zygote, reaper: Reaper, *, deadline: float = 10.0, is_spare: bool = False) -> Child:
        """Start a child; raise `StartFailed` when it is not ready for a job within `deadline` seconds.

        A late child also ends the zygote, unless the child is a spare, for which no slot waits.
        """
        try:
            child = cls(zygote, reaper, ChildChannels.open())
        except OSError as error:
            raise StartFailed(f"no descriptors for a child: {error.strerror}") from error
        try:
            async with asyncio.timeout(deadline):
                await child._ready
        except TimeoutError:
            # A library's fork hook may hang, and the zygote with it.  Ending the zygote harms no job; the handler
            # loader starts another one.
            if not is_spare:
                zygote.terminate()
            await child.kill()
            raise StartFailed(f"a child was not ready within {deadline:g} s") from None
        except BaseException:
            await child.kill()
            raise
        return child

    def __repr__(self) -> str:
        return f"<Child {self.state.value} pid {self.pid}>"

    @property
    def pid(self) -> int | None:
        return self._exit_watch.pid

    @property
    def jobs(self) -> int:
        return self._exit_watch.jobs

    @property
    def is_idle(self) -> bool:
        return self.state is ChildState.IDLE

    @property
    def is_busy(self) -> bool:
        return self.state is ChildState.BUSY

    def poll_pid(self) -> None:
        """Read the messages of a starting child, one of which may carry its pid."""
        if self.pid is None:
            self._pipe.drain()

    @property
    def idle_memory(self) -> int:
        """Bytes of memory used between jobs; 0 where the kernel does not count them."""
        return self._cgroup.memory

    def set_memory_limit(self, limit: int) -> bool:
        """Let the kernel kill all processes of the next job above `limit` bytes; return False when it cannot."""
        return self._cgroup.set_memory_limit(limit)

    def run(self, order: Run, listener: JobListener) -> Coroutine[Any, Any, JobReply]:
        """Run a job and return the child's reply; raise `ChildDied` when the child exits before it replies.

        The call takes ownership of a parameters file.  A cancelled call leaves the child BUSY: it must be killed.
        """
        assert self.state is ChildState.IDLE, self
        self.state = ChildState.BUSY
        self._exit_watch.start_job()
        self._segments.begin()
        self._output.start_job()
        self._stack.start_job()
        # Niceness counts within a session only: dozens of sessions with the weight of the parent's session would delay
        # the parent's heartbeats.
        self._weigh_session(order.nice)
        return self._job_channel.run(order, listener)

    async def ensure_picked_up(self) -> None:
        """Kill the child if it does not read its order in time; runs beside a job that does not end at once.

        A stopped child, or one that a thread of the previous job keeps in a loop, never reads its next order.  No
        message confirms the order: the kernel knows whether it was read.
        """
        if self._is_waiting_to_begin:
            await asyncio.sleep(PICK_UP_TIMEOUT)
            if self._is_waiting_to_begin:
                self._fault = f"did not take up its job within {PICK_UP_TIMEOUT:g} s"
                self.kill_now()

    @property
    def _is_waiting_to_begin(self) -> bool:
        return self.state is ChildState.BUSY and not self._pipe.is_drained

    def pause(self) -> None:
        """Stop reading messages, so that the handler's next `emit` blocks."""
        self._pipe.pause()

    def resume(self) -> None:
        """Read messages again."""
        self._pipe.resume()

    def terminate(self) -> None:
        """Send SIGTERM: the child writes its Python stack and interrupts its handler."""
        self._stack.renew()
        self._restore_weight()
        self._exit_watch.signal(signal.SIGTERM)

    def resend_sigterm(self) -> None:
        """Send SIGTERM again, which ends a wait of the handler without a second interruption."""
        self._exit_watch.signal(signal.SIGTERM)

    async def capture_stop_stack(self, within: float) -> None:
        """Keep the stack at the time of the stop, even if the handler has replaced the SIGTERM handler."""
        if self._stack.is_begun:
            await self._stack.is_written(within)
        else:
            await self.write_stack(within)
        self._stack.keep()

    def _restore_weight(self) -> None:
        """Restore the full share of the CPU: a process must also be scheduled in order to exit."""
        if self.state is ChildState.BUSY:
            self._weigh_session(0)

    def _weigh_session(self, niceness: int) -> None:
        if self.pid is not None:
            self._reaper.session_weights.set(self.pid, niceness)

    async def write_stack(self, within: float) -> bool:
        """Make the child write its Python stack, even from inside a C call; it takes a millisecond.

        Return False when the stack is incomplete after `within` seconds.
        """
        if self.state is not ChildState.BUSY:
            return False  # before its first job SIGUSR1 may kill the child: `faulthandler` is not registered yet
        self._stack.renew()
        self._exit_watch.signal(signal.SIGUSR1)
        return await self._stack.is_written(within)

    def kill_now(self) -> None:
        """Send SIGKILL to the child and its process group, after a scan of a job's shared memory; then await `wait`."""
        if self._scan is not None:
            return  # the child is killed when the scan is over
        if self.state is ChildState.BUSY and self.pid is not None and self._segments.may_exist():
            self._scan = self._loop.create_task(self._scan_then_kill(self.pid))
        else:
            self._kill_at_once()

    async def _scan_then_kill(self, pid: int) -> None:
        try:
            await self._segments.look(pid)
        finally:  # also when the parent's exit cancels this task
            self._kill_at_once()

    def _kill_at_once(self) -> None:
        if self.state is not ChildState.EXITED and self.pid is not None:
            self._kill_tree(self.pid)
            self._exit_watch.signal(signal.SIGKILL)  # the group does not exist before the child has called setsid
            self._restore_weight()
            self._exit_watch.expect_exit(self._reaper.kill_timeout)

    @property
    def last_line(self) -> str | None:
        """The last line that the job printed."""
        return next(iter(self._output.last_lines(1)), None)

    @property
    def cpu_seconds(self) -> float | None:
        return self._exit_watch.job_cpu_seconds

    async def stack(self) -> str:
        """Return the current Python stack; raise `TimeoutError` when it is not written within `STACK_TIMEOUT`."""
        if not await self.write_stack(STACK_TIMEOUT):
            raise TimeoutError
        return self._stack.read()

    def wait(self) -> Awaitable[bool]:
        """Wait until the child is reaped or counts as unkillable."""
        return self._exit_watch.wait()

    async def kill(self) -> None:
        """Kill the child and all its descendants; return when each is reaped or counts as unkillable.

        A cancelled call finishes first: no other task would reap the child.
        """
        await shielded(self._kill())

    async def _kill(self) -> None:
        self.poll_pid()
        await self._exit_watch.wait_for_pid()
        if self.pid is None:
            self._close()  # a child that starts later exits: it finds its pipe closed or its cgroup gone
            self._cgroup.kill()
        else:
            self.kill_now()
            await self.wait()
        if swept := await self._reaper.kill_orphans():
            log.warning("killed orphan processes of a child", processes=swept, pid=self.pid)
        if not self._exit_watch.is_unkillable:
            if removed := await self._segments.remove():
                log.warning("removed shared memory of a killed job", bytes=removed, pid=self.pid)
            await self._cgroup.remove()

    def _on_unkillable(self) -> None:
        """Stop waiting for a child that survives SIGKILL.  It stays registered and is reaped if it exits later.

        Causes: a disk that does not answer, a frozen control group, a program of another user.
        """
        log.error("a child cannot be killed", pid=self.pid)
        self._close_channels()
        if not self._ready.done():
            self._ready.set_exception(StartFailed("a child cannot be killed"))
        self._job_channel.abort(ChildUnkillable("its process cannot be killed"))

    def _kill_tree(self, pid: int) -> None:
        """Send SIGKILL to the process group and the cgroup of the child `pid`; `kill_orphans` finds the rest."""
        kill_group(pid)
        self._cgroup.kill()

    def _on_message(self, message: ChildMessage) -> None:
        if self.state is ChildState.BUSY:
            self._job_channel.receive(message)
        elif self.state is ChildState.STARTING and isinstance(message, Forked) and self.pid is None:
            self._set_pid(message.pid)
        elif self.state is ChildState.STARTING and isinstance(message, Ready) and not self._is_set_up:
            self._is_set_up = True
        else:
            raise WireError(f"said {type(message).__name__} out of turn, while {self.state.value}")
        if self.state is ChildState.STARTING and self._is_set_up and self.pid is not None:
            self._begin(self.pid)

    def _set_pid(self, pid: int) -> None:
        try:
            self._exit_watch.watch(pid)
        except OSError as error:
            # Treated as never started: the child finds its pipe closed and exits, or `kill_orphans` kills it.
            self._fault = f"cannot be watched: {error.strerror}"
            self._record_exit(NEVER_STARTED)

    def _begin(self, pid: int) -> None:
        self._exit_watch.ready(pid)
        self.state = ChildState.IDLE
        if not self._ready.done():  # `start` may have been cancelled
            self._ready.set_result(None)

    def _on_job_over(self, message: Finished) -> None:
        # The job's output has arrived already: the child flushes it before it sends `Finished`.
        if message.has_output:
            self._output.drain()
        else:
            self._output.end_line()
        self._cgroup.clear_memory_limit()
        self._exit_watch.end_job(message.cpu)
        self.state = ChildState.IDLE

    def _on_line(self, line: str) -> None:
        if self._job_channel.listener is not None:
            try:
                self._job_channel.listener.on_line(line)
            except Exception:  # a bug in the parent loses this line, but neither the job nor its outcome
                log.exception("handling an output line failed", pid=self.pid)
        elif self.pid is not None:  # the output of a child that fails to start is part of the reason
            log.info("printed", line=line, pid=self.pid)

    def _on_end(self, error: WireError | None) -> None:
        if isinstance(error, MessageHandlingError):  # later messages, such as the outcome, would never be read
            log.error("handling a message of a child failed", pid=self.pid, exc_info=error.__cause__)
            self._fault = self._fault or str(error)
        elif isinstance(error, SendTimeout):
            self._fault = self._fault or str(error)
            self._job_channel.fail(f"the process {error}")  # not a crash: the job did not end its process
        elif error is not None:
            self._fault = self._fault or f"broke the protocol: it {error}"
        if self.pid is None:
            self._fault = self._fault or "could not be forked, or the zygote is gone"
            self._record_exit(NEVER_STARTED)
        elif error is not None:
            self.kill_now()
        elif self.state is not ChildState.EXITED:
            # Usually the exit follows at once; but a handler may close all descriptors and continue.
            self._loop.call_later(EXIT_AFTER_CLOSE_TIMEOUT, self._end_lingering)

    def _end_lingering(self) -> None:
        if self.state is not ChildState.EXITED:
            self._fault = self._fault or "closed its pipe to the supervisor and went on"
            self.kill_now()

    def _on_exit(self, pid: int) -> None:
        self._kill_tree(pid)  # the zombie keeps its process group id from being reused
        self._pipe.drain()

    def _record_exit(self, how: ExitStatus) -> None:
        if self._exit_watch.is_unkillable:
            log.info("unkillable child has ended", pid=self.pid, how=str(how))
            self._unregister()
            return
        self._output.drain()
        self.exit_report = ExitReport(
            how, self._fault or str(how), self._stack.read(), self._output.last_lines(), self._cgroup.oom_kill()
        )
        self._close()
        if not self._ready.done():
            last = "; ".join(self.exit_report.last_lines[-3:])
            self._ready.set_exception(StartFailed(f"a child {self.exit_report.reason}" + (f": {last}" if last else "")))
        self._job_channel.abort(ChildDied(self.exit_report.reason))

    def _close(self) -> None:
        self._close_channels()
        self._unregister()

    def _close_channels(self) -> None:
        """Stop reading from the child and waiting for it."""
        self.state = ChildState.EXITED
        self._pipe.close()
        self._output.close()
        self._stack.close()
        self._exit_watch.stop_waiting()

    def _unregister(self) -> None:
        self._exit_watch.close()
        if self.pid is not None:
            self._reaper.session_weights.forget(self.pid)
        self._reaper.unregister(self)
