"""One child process, from fork to exit.  Runs in the parent.

It owns the child's pid, pidfd, message pipe, output, exit status and usage.  It decides nothing about jobs: what is
said of them is the `Dialogue`'s, and it kills.

    STARTING ──Ready→ IDLE ──run→ BUSY ──Finished→ IDLE        any ──exit→ EXITED
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import signal
from collections.abc import Awaitable, Coroutine
from dataclasses import replace
from typing import Any

import structlog

from supervisor.concurrency.helpers import shielded
from supervisor.ipc.messages import ChildMessage, Finished, Forked, Ready, Run
from supervisor.ipc.wire import SendTimeout, WireError
from supervisor.linux.exit_status import UNKNOWN, ExitReport, ExitStatus
from supervisor.linux.syscalls import cpu_seconds, kill_group
from supervisor.process.child_channels import ChildChannels
from supervisor.process.job_channel import JobChannel, JobListener, JobReply, MessageHandlingError
from supervisor.process.output import Output
from supervisor.process.pipe import Pipe
from supervisor.process.reaper import Reaper
from supervisor.process.shared_memory import JobSegments
from supervisor.process.zygote import StartFailed, Zygote

log = structlog.get_logger("child")

FORK_TIMEOUT = 1.0
"""Seconds that a fork may take before a child that is not wanted any more is given up; it takes a millisecond."""
PICK_UP_TIMEOUT = 10.0
"""Seconds in which a child has taken up its job; it takes a millisecond."""
EXIT_AFTER_CLOSE_TIMEOUT = 2.0
"""Seconds that a child may live on after it closed its pipe."""
REAP_RETRY_INTERVAL = 0.001
"""Seconds until one looks again whether a dead child is ours by now, which nothing tells."""
STACK_TIMEOUT = 2.0
"""Seconds that a child may take to write its stack; one that waits for a disk, or is stopped, does not."""
NEVER_STARTED = ExitStatus(code=70, signal=0, peak_memory=0, cpu=0.0)


class ChildState(enum.Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    EXITED = "exited"


class ChildUnkillable(Exception):
    """The child cannot be killed: nobody knows what it still does.  Caught by the attempt, which leaves its job."""


class ChildDied(Exception):
    """The child ended before it said how its job went.  Caught by the attempt, which asks for its `ending`."""


class Child:
    """A process that runs one job at a time."""

    def __init__(self, zygote: Zygote, family: Reaper, cord: ChildChannels) -> None:
        loop = asyncio.get_running_loop()
        self.zygote = zygote
        self.state = ChildState.STARTING
        self.pid: int | None = None
        self.jobs = 0
        """How many jobs it was given."""
        self.exit_report: ExitReport | None = None
        """What is left of it, once it has exited."""
        self._loop = loop
        self._reaper = family
        self._pidfd = cord.reserved
        """Becomes the child's pidfd once its pid is known; until then it keeps the place."""
        self._cpu_before = 0.0  # before its job
        self._cpu_after = 0.0  # when its last job had ended
        self._fault = ""
        self._is_set_up = False  # which it may say before somebody else has said its pid
        self._ready: asyncio.Future[None] = loop.create_future()
        self._pid_known = asyncio.Event()  # its pid is, or that there will be none
        self._ended = asyncio.Event()
        self._unkillable_timer: asyncio.TimerHandle | None = None
        self._is_unkillable = False
        self._looking: asyncio.Task[None] | None = None
        self._segments = JobSegments()
        self._output = Output(cord.our_output, self._on_line)
        self._stack = cord.our_stack
        self._pipe: Pipe[ChildMessage] = Pipe(cord.our_pipe, ChildMessage, self._on_message, self._on_end)
        self._job_channel = JobChannel(self._pipe, family.spare_descriptor, self._on_job_over)
        self._cgroup = family.new_cgroup()
        family.register(self)
        with cord.their_pipe:
            zygote.fork(cord.their_pipe, cord.their_output, cord.their_stack, self._cgroup.path)

    @classmethod
    async def start(cls, zygote: Zygote, family: Reaper, *, deadline: float = 10.0, is_spare: bool = False) -> Child:
        """A child that waits for a job; raise `StartFailed` when it is not ready within `deadline` seconds.

        That ends the zygote, unless the child is a spare, which nobody needs.
        """
        try:
            child = cls(zygote, family, ChildChannels.open())
        except OSError as error:
            raise StartFailed(f"no descriptors for a child: {error.strerror}") from error
        try:
            async with asyncio.timeout(deadline):
                await child._ready
        except TimeoutError:
            # Perhaps a hook of some library hangs in the fork, and the zygote with it.  Its end harms no job, and
            # whoever keeps zygotes starts another one.
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
    def is_idle(self) -> bool:
        return self.state is ChildState.IDLE

    @property
    def is_busy(self) -> bool:
        return self.state is ChildState.BUSY

    def poll_pid(self) -> None:
        """Read what a child that is just being born has said, so that its pid is known."""
        if self.pid is None:
            self._pipe.drain()

    @property
    def idle_memory(self) -> int:
        """Bytes of memory that it has before its next job; 0 where the kernel does not count them."""
        return self._cgroup.memory

    def set_memory_limit(self, limit: int) -> bool:
        """Have the kernel kill the next job, all of it, when it uses more than `limit` bytes; False when it cannot."""
        return self._cgroup.set_memory_limit(limit)

    def run(self, order: Run, listener: JobListener) -> Coroutine[Any, Any, JobReply]:
        """Have a job run and wait for what the child says of it; raise `ChildDied` when it ends before.

        It takes over the parameters that are in a file.

        When this is cancelled the child is left BUSY: it is of no use any more and must be killed.
        """
        assert self.state is ChildState.IDLE, self
        self.state = ChildState.BUSY
        self.jobs += 1
        self._cpu_before = self._cpu_after
        self._segments.begin()
        self._output.start_job()
        self._stack.start_job()
        # Niceness counts within a session: dozens of sessions that weigh as much as the parent's would delay its
        # heartbeats.
        self._weigh_session(order.nice)
        return self._job_channel.run(order, listener)

    async def ensure_picked_up(self) -> None:
        """See that it takes up its job, and end it when it does not; awaited beside a job that is not over at once.

        One that is stopped, or was left in a loop by a thread of the job before, never looks at its next order.  It
        need not say that it does: the kernel knows whether the order was read.
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
        """Read no more of what it says: its next `emit` waits."""
        self._pipe.pause()

    def resume(self) -> None:
        """Read on."""
        self._pipe.resume()

    def terminate(self) -> None:
        """SIGTERM to the child: it writes its Python stack, and its handler is to clean up and stop."""
        self._stack.renew()
        self._restore_weight()
        self._signal(signal.SIGTERM)

    def resend_sigterm(self) -> None:
        """SIGTERM once more, which ends a wait of its handler and is no second interruption."""
        self._signal(signal.SIGTERM)

    async def capture_stop_stack(self, within: float) -> None:
        """Have the stack at which it was asked to stop, also when its handler has taken SIGTERM for itself."""
        if self._stack.is_begun:
            await self._stack.is_written(within)
        else:
            await self.write_stack(within)
        self._stack.keep()

    def _restore_weight(self) -> None:
        """Give it its full share of the CPU: also to end, a process must be scheduled."""
        if self.state is ChildState.BUSY:
            self._weigh_session(0)

    def _weigh_session(self, niceness: int) -> None:
        if self.pid is not None:
            self._reaper.session_weights.set(self.pid, niceness)

    async def write_stack(self, within: float) -> bool:
        """Have the child write its Python stack, even from inside a C call, which takes it a millisecond.

        False when it is not there within so many seconds.
        """
        if self.state is not ChildState.BUSY:
            return False  # earlier SIGUSR1 would kill it: `faulthandler` is not there yet
        self._stack.renew()
        self._signal(signal.SIGUSR1)
        return await self._stack.is_written(within)

    def kill_now(self) -> None:
        """SIGKILL to the child and its process group, after a look at a job's shared memory; then await `wait`."""
        if self._looking is not None:
            return  # it is killed when the look is over
        if self.state is ChildState.BUSY and self.pid is not None and self._segments.may_exist():
            self._looking = self._loop.create_task(self._look_then_kill(self.pid))
        else:
            self._kill_at_once()

    async def _look_then_kill(self, pid: int) -> None:
        try:
            await self._segments.look(pid)
        finally:  # also at the end of the program, which cancels this
            self._kill_at_once()

    def _kill_at_once(self) -> None:
        if self.state is not ChildState.EXITED and self.pid is not None:
            self._kill_tree(self.pid)
            self._signal(signal.SIGKILL)  # the group is not there yet when the child has not called setsid
            self._restore_weight()
            if self._unkillable_timer is None:
                self._unkillable_timer = self._loop.call_later(self._reaper.kill_timeout, self._mark_unkillable)

    @property
    def last_line(self) -> str | None:
        """What its job printed last."""
        return next(iter(self._output.last_lines(1)), None)

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time of its job so far, that of processes which the job started left out; None once it is gone."""
        used = cpu_seconds(self.pid) if self.pid is not None else None
        return None if used is None else used - self._cpu_before

    async def stack(self) -> str:
        """The Python stack as it is now; raise `TimeoutError` when it is not written within `STACK_DEADLINE`."""
        if not await self.write_stack(STACK_TIMEOUT):
            raise TimeoutError
        return self._stack.read()

    def wait(self) -> Awaitable[bool]:
        """Wait until it has ended and was reaped, or was written off."""
        return self._ended.wait()

    async def kill(self) -> None:
        """End it and all that it started; when this returns, every one of these processes is reaped, or written off.

        Also when it is cancelled: nobody else would bury it.
        """
        await shielded(self._kill())

    async def _kill(self) -> None:
        await self._wait_for_pid()
        if self.pid is None:
            self._close()  # never born; should it come yet, it finds its pipe closed, or its group gone, and leaves
            self._cgroup.kill()
        else:
            self.kill_now()
            await self.wait()
        if swept := await self._reaper.kill_orphans():
            log.warning("killed what a child left behind", processes=swept, pid=self.pid)
        if not self._is_unkillable:
            if removed := await self._segments.remove():
                log.warning("removed shared memory of a killed job", bytes=removed, pid=self.pid)
            await self._cgroup.remove()

    def _mark_unkillable(self) -> None:
        """It outlives SIGKILL: nobody waits for it any more.  It stays one of the family, and is reaped should it end.

        Perhaps a disk does not answer it, or its control group is frozen, or it has become another user's program.
        """
        log.error("a child cannot be killed: its slot goes on without it", pid=self.pid)
        self._is_unkillable = True
        self._close_channels()
        if not self._ready.done():
            self._ready.set_exception(StartFailed("a child cannot be killed"))
        self._job_channel.abort(ChildUnkillable("its process cannot be killed"))

    def _kill_tree(self, pid: int) -> None:
        """SIGKILL to what the child `pid` has started, as far as it can be reached at once; the rest is swept."""
        kill_group(pid)
        self._cgroup.kill()

    async def _wait_for_pid(self) -> None:
        """Wait until its pid is known: a child that is just being forked cannot be killed yet, but would come later."""
        self.poll_pid()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FORK_TIMEOUT):
                await self._pid_known.wait()

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
        self.pid = pid
        self._pid_known.set()
        reserved, self._pidfd = self._pidfd, -1
        os.close(reserved)
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError as error:
            # As if it had never been born: it finds its pipe closed and leaves, or is swept.
            self.pid = None
            self._fault = f"cannot be watched: {error.strerror}"
            self._record_exit(NEVER_STARTED)
            return
        self._loop.add_reader(self._pidfd, self._on_exit)

    def _begin(self, pid: int) -> None:
        self._cpu_after = cpu_seconds(pid) or 0.0
        self.state = ChildState.IDLE
        if not self._ready.done():  # whoever wanted it may have gone
            self._ready.set_result(None)

    def _on_job_over(self, message: Finished) -> None:
        # What was printed before is there already: the child flushes before it says that it is done.
        if message.has_output:
            self._output.drain()
        else:
            self._output.end_line()
        self._cgroup.clear_memory_limit()
        self._cpu_after = message.cpu
        self.state = ChildState.IDLE

    def _on_line(self, line: str) -> None:
        if self._job_channel.listener is not None:
            self._pass_line(self._job_channel.listener, line)
        elif self.pid is not None:  # what is said of one that is not born is in the reason why
            log.info("printed", line=line, pid=self.pid)

    def _pass_line(self, listener: JobListener, line: str) -> None:
        try:
            listener.on_line(line)
        except Exception:  # a bug of ours: what is printed is lost, and not the job nor the news of its end
            log.exception("what a child printed could not be taken in", pid=self.pid)

    def _on_end(self, error: WireError | None) -> None:
        if isinstance(error, MessageHandlingError):  # what it said next, its outcome for one, would never be heard
            log.error("what a child said could not be taken in", pid=self.pid, exc_info=error.__cause__)
            self._fault = self._fault or str(error)
        elif isinstance(error, SendTimeout):
            self._fault = self._fault or str(error)
            self._job_channel.fail(f"the process {error}")  # not a death of this job, which has not killed it
        elif error is not None:
            self._fault = self._fault or f"broke the protocol: it {error}"
        if self.pid is None:
            self._fault = self._fault or "could not be forked, or the zygote is gone"
            self._record_exit(NEVER_STARTED)
        elif error is not None:
            self.kill_now()
        elif self.state is not ChildState.EXITED:
            # Usually its exit follows at once; but a handler may have closed all descriptors and go on.
            self._loop.call_later(EXIT_AFTER_CLOSE_TIMEOUT, self._end_lingering)

    def _end_lingering(self) -> None:
        if self.state is not ChildState.EXITED:
            self._fault = self._fault or "closed its pipe to the supervisor and went on"
            self.kill_now()

    def _on_exit(self) -> None:
        # The pidfd tells of the exit, not the pipe: a grandchild may hold the pipe open for hours.
        assert self.pid is not None
        self._loop.remove_reader(self._pidfd)
        self._kill_tree(self.pid)  # while it is not reaped, its group cannot be anybody else's
        try:
            self._pipe.drain()
        finally:  # whatever goes wrong with what it said: it is dead, and somebody waits for that
            self._reap(self.pid)

    def _reap(self, pid: int) -> None:
        own_cpu = self.cpu_seconds
        try:
            _, status, usage = os.wait4(pid, 0)
        except ChildProcessError:
            if self._is_reaped:  # by another part of this program, or by the kernel, where SIGCHLD is ignored
                self._record_exit(UNKNOWN)
            else:
                # It was killed so young that the process between it and the zygote, its parent, has not left yet.
                self._loop.call_later(REAP_RETRY_INTERVAL, self._reap, pid)
        else:
            how = ExitStatus.of(status, usage)
            # Of later jobs only their own time is known: what it waited for may have been started by an earlier one.
            self._record_exit(how if self.jobs <= 1 or own_cpu is None else replace(how, cpu=own_cpu))

    @property
    def _is_reaped(self) -> bool:
        """True if not even a zombie is left of it."""
        try:
            signal.pidfd_send_signal(self._pidfd, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # a zombie of another user
            pass
        return False

    def _record_exit(self, how: ExitStatus) -> None:
        if self._is_unkillable:
            log.info("a child that could not be killed has ended", pid=self.pid, how=str(how))
            self._unregister()
            return
        self._output.drain()
        self.exit_report = ExitReport(
            how,
            self._fault or str(how),
            self._stack.read(),
            self._output.last_lines(),
            self._cgroup.oom_kill(),
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
        """Nothing more is heard of it, nor waited for."""
        self.state = ChildState.EXITED
        if self._unkillable_timer is not None:
            self._unkillable_timer.cancel()
        self._pipe.close()
        self._output.close()
        self._stack.close()
        self._pid_known.set()
        self._ended.set()

    def _unregister(self) -> None:
        """It is reaped, or was never born."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self.pid is not None:
            self._reaper.session_weights.forget(self.pid)
        self._reaper.unregister(self)

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None and self._pidfd >= 0:
            # Its handler has become another user's program; or it was reaped elsewhere.
            with contextlib.suppress(PermissionError, ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
