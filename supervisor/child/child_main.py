"""The main loop of a child: set up the process, then receive a job, run its handler and send the outcome, repeatedly.

All of it runs in the main thread, where Python delivers signals, so that `Cancelled` is raised in the handler.  The
child only sends facts.  The parent decides what to report to the server.  Tested by tests/process/test_child.py.
"""

from __future__ import annotations

import base64
import contextlib
import faulthandler
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from msgspec.structs import replace

from supervisor.child import descendants, random_generators, thread_limits
from supervisor.child.job_runner import JobRunner
from supervisor.child.process_snapshot import ProcessSnapshot, running_threads
from supervisor.child.random_generators import Reseed
from supervisor.child.sigterm import SigtermHandler
from supervisor.child.stack_dump import StackDumper
from supervisor.handler_api.interruption import Interruption
from supervisor.handler_api.library_log import LibraryLog
from supervisor.ipc.blocking_pipe import BlockingPipe
from supervisor.ipc.messages import ChildCommand, Finished, Ready, ResendResult, Run
from supervisor.ipc.send_errors import is_gone, reason
from supervisor.ipc.wire import ATTACH_ABOVE_BYTES
from supervisor.job import Blob, Failed
from supervisor.linux.confinement import Restrictions
from supervisor.linux.memfd import create_sealed, read
from supervisor.linux.spare_descriptor import SpareDescriptor
from supervisor.linux.syscalls import become_subreaper, bytes_waiting, die_with_parent, set_dumpable
from supervisor.text.size import format_size

PARENT_POLL_INTERVAL = 0.0002
"""Seconds between two checks of whether the intermediate process has exited; no event reports it."""
THREAD_END_DELAY = 0.05
"""Seconds that a thread of the handler may take to end after the handler returned."""
THREAD_POLL_INTERVAL = 0.0002
"""Seconds between two counts of the threads; no event reports the end of a thread that `threading` does not know."""
OOM_SCORE = 500
"""Added to a child's badness, so that the OOM killer prefers a job to the supervisor (proc_pid_oom_score_adj(5))."""


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """Parameters of a new child: its descriptors, its control group, the pid of the supervisor, and its limits.

    `cgroup` is empty if the child has no control group of its own.
    """

    pipe: int
    output: int
    stack: int
    cgroup: str
    supervisor: int
    restrictions: Restrictions
    library_log: LibraryLog
    reseeds: Sequence[Reseed]

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in (self.pipe, self.output, self.stack):
            os.close(descriptor)


def main(request: ForkRequest, *, intermediate_pid: int) -> NoReturn:
    """Run jobs in the freshly forked child until the pipe is closed.  `intermediate_pid` is its first parent."""
    status = 1
    try:
        _set_up_process(request)
        pipe: BlockingPipe[ChildCommand] = BlockingPipe(socket.socket(fileno=request.pipe), ChildCommand)
        Worker(pipe, request, intermediate_pid).serve()
        status = 0
    except (BrokenPipeError, ConnectionResetError):
        pass  # the parent has exited, or has closed its end of the pipe
    except BaseException:  # noqa: BLE001 - the traceback is all that the parent can log about this exit
        traceback.print_exc()
    finally:
        _flush()
        # Not sys.exit: it would wait for threads that a handler left running, and run the zygote's exit handlers.
        os._exit(status)


def _set_up_process(request: ForkRequest) -> None:
    """Give the child its own session, output, signal handling and random seeds, and restrict it."""
    set_dumpable(True)  # the default of every program; the zygote has switched it off (see `zygote_main`)
    os.setsid()
    os.dup2(request.output, 1)
    os.dup2(request.output, 2)
    os.close(request.output)
    become_subreaper()
    _raise_oom_score()
    # The default of every Python program.  Ctrl-C does not reach the child: the terminal signals another session.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.enable(request.stack)
    random_generators.reseed(request.reseeds)
    request.restrictions.enforce()


def _raise_oom_score() -> None:
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(str(OOM_SCORE).encode())
    except OSError:
        pass  # some containers forbid the write; the score is only a preference


class Worker:
    """The main loop of a child."""

    def __init__(self, pipe: BlockingPipe[ChildCommand], request: ForkRequest, intermediate_pid: int) -> None:
        self._pipe = pipe
        self._supervisor_pid = request.supervisor
        self._intermediate_pid = intermediate_pid
        self._spare_descriptor = SpareDescriptor()
        self._spare_descriptor.fill()
        interruption = Interruption()
        stack_dumper = StackDumper(interruption, request.stack)
        self._sigterm = SigtermHandler(interruption, stack_dumper, request.stack)
        self._library_log = request.library_log
        self._runner = JobRunner(pipe, interruption, stack_dumper, request.library_log)
        self._home = _working_directory()
        self._niceness = os.getpriority(os.PRIO_PROCESS, 0)
        self._thread_limit = 0
        self._snapshot = ProcessSnapshot.of_this_process()

    def serve(self) -> None:
        """Run jobs until the pipe is closed or this process is not reusable."""
        self._pipe.send(Ready())
        while isinstance(order := self._pipe.receive(), Run):
            finished = self._run(order)
            if not finished.reusable:
                return

    def _run(self, order: Run) -> Finished:
        parameters = self._receive_parameters(order)
        self._prepare(order)
        outcome = self._runner.run(order, parameters)
        faulthandler.cancel_dump_traceback_later()  # a handler's watchdog could end this process during the next job
        _flush()
        left = self._end_descendants()
        left += self._count_left_threads() + self._count_left_tasks()
        reusable = not left and ProcessSnapshot.of_this_process() == self._snapshot
        if not self._pipe.is_intact:  # the descriptor may now be a file of the handler
            raise OSError("the handler closed the pipe to the supervisor")
        finished = Finished(
            reusable=reusable,
            cpu=time.process_time(),
            has_workdir=os.access(order.workdir, os.F_OK, follow_symlinks=False),
            has_output=not reusable or bytes_waiting(1) > 0,  # a reusable child still has its own output pipe
        )
        return self._send(outcome, finished)

    def _end_descendants(self) -> int:
        """Kill all processes that the handler left behind; return how many there were."""
        if not descendants.exist():
            return 0
        with self._spare_descriptor.released():
            tracker = descendants.tracker_pid()  # exits by itself when the last process closes its pipe
            ended = descendants.end_all(but=tracker)
            if tracker is not None:
                descendants.shut_down_tracker(tracker)
                ended += descendants.end_all()
        if ended.killed:
            _print(f"killed {_counted(ended.killed, 'process', 'processes')} that the handler left behind")
        if ended.survived:
            _print(f"{_counted(ended.survived, 'process', 'processes')} that the handler left behind cannot be killed")
        # With its tracker gone, the handler may hold names of objects that the tracker has unlinked.
        return ended.killed + ended.survived + (tracker is not None)

    def _count_left_threads(self) -> int:
        """Return how many threads the handler left running, and print the number for the log."""
        deadline = time.monotonic() + THREAD_END_DELAY
        while (left := running_threads() - self._snapshot.threads) > 0 and time.monotonic() < deadline:
            time.sleep(THREAD_POLL_INTERVAL)  # the thread may be about to end
        if left > 0:
            _print(f"the handler left {_counted(left, 'thread', 'threads')} running: its process takes no further job")
        return max(0, left)

    def _count_left_tasks(self) -> int:
        """Return how many asyncio tasks survived their cancellation, and print the number for the log."""
        left = self._runner.tasks_left
        if left:
            tasks = _counted(left, "asyncio task", "asyncio tasks")
            _print(f"{tasks} of the handler did not end: its process takes no further job")
        return left

    def _receive_parameters(self, order: Run) -> bytes:
        parameters = order.job.parameters
        if isinstance(parameters, Blob):
            return read(Blob(self._pipe.take_descriptor(), parameters.size, parameters.offset))
        return parameters

    def _prepare(self, order: Run) -> None:
        """Undo what an earlier job may have changed, and set what this job needs."""
        self._die_with_supervisor()
        self._sigterm.install()
        self._library_log.restore()
        self._enter_home()
        _set_variables(
            MOBIUS_JOB_ID=order.job.job_id,
            MOBIUS_RUN_ID=order.job.run_id,
            MOBIUS_ACTION=order.job.action,
            MOBIUS_ATTEMPT=str(order.job.attempt),
            MOBIUS_WORKER_ID=order.worker_id,
        )
        self._set_niceness(order.nice)
        if order.threads != self._thread_limit:
            thread_limits.apply(order.threads)
            self._thread_limit = order.threads

    def _enter_home(self) -> None:
        try:
            os.chdir(self._home)
        except OSError as error:  # a later release may have replaced the folder in which the program was started
            _print(f"the folder {self._home} cannot be entered: {error.strerror}; jobs run in /")
            self._home = "/"
            os.chdir(self._home)

    def _die_with_supervisor(self) -> None:
        """Ask the kernel to kill this process when the supervisor dies.

        The supervisor becomes the parent once the intermediate process has exited; a request before that would watch
        the wrong process.  An idle child needs no request: it reads the end of its pipe.
        """
        while os.getppid() == self._intermediate_pid:  # it may still be forking other children
            time.sleep(PARENT_POLL_INTERVAL)
        die_with_parent()
        if os.getppid() != self._supervisor_pid:  # the supervisor died before the request
            os._exit(1)

    def _set_niceness(self, added: int) -> None:
        with contextlib.suppress(PermissionError):  # only root may lower a niceness that an earlier job has raised
            os.setpriority(os.PRIO_PROCESS, 0, self._niceness + added)

    def _send(self, outcome: Failed | bytes | None, finished: Finished) -> Finished:
        """Add the outcome to `finished` and send it."""
        if isinstance(outcome, Failed):
            finished = replace(finished, failed=outcome)
        elif outcome is not None and len(outcome) <= ATTACH_ABOVE_BYTES // 2:
            finished = replace(finished, result=base64.b64encode(outcome))
        elif outcome is not None:
            return self._send_large(outcome, finished)
        self._pipe.send(finished)
        return finished

    def _send_large(self, result: bytes, finished: Finished) -> Finished:
        with self._spare_descriptor.released():
            try:
                self._send_memfd(result, replace(finished, attached=True))
            except OSError as error:
                if is_gone(error):
                    raise
                why = f"the result of {format_size(len(result))} could not be handed over: {reason(error)}"
                return self._send(Failed("SupervisorError", why), finished)
        return finished

    def _send_memfd(self, result: bytes, finished: Finished) -> None:
        descriptor = create_sealed("result", _base64_chunks(result))
        try:
            self._pipe.send(finished, descriptor)
            while isinstance(self._pipe.receive(), ResendResult):
                self._pipe.send(finished, descriptor)
        finally:
            os.close(descriptor)


def _print(sentence: str) -> None:
    """Write a line to standard error, which the parent logs as output of the job."""
    os.write(2, f"[{sentence}]\n".encode())


def _counted(count: int, singular: str, plural: str) -> str:
    return f"{count} {singular if count == 1 else plural}"


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # the folder was removed
        return "/"


def _set_variables(**variables: str) -> None:
    """Set environment variables; skip those that an earlier job has set to the same value."""
    for name, value in variables.items():
        if os.environ.get(name) != value:
            os.environ[name] = value.replace("\0", "")


def _base64_chunks(result: bytes) -> Iterator[bytes]:
    """Encode in chunks, so that memory never holds the whole encoded text beside the result."""
    size = 3 * 1024 * 1024  # a multiple of three: base64 pads any other chunk
    return (base64.b64encode(result[start : start + size]) for start in range(0, len(result), size))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A handler may have closed a stream, or replaced it by any object.
        with contextlib.suppress(Exception):
            stream.flush()
