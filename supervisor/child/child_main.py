"""Inside a child: become a process of its own, then read a job, call its handler, say how it went, and again.

The main thread does all of it, so that `Cancelled` reaches the handler.  Nothing here decides what is reported: the
child only tells what happened to it.
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
from pathlib import Path
from typing import Any, NoReturn

from msgspec.structs import replace

from supervisor.child import descendants, generators
from supervisor.child import descendants as tracker
from supervisor.child import thread_limits as threads
from supervisor.child.error_text import describe, is_made_of, text_of, type_of
from supervisor.child.generators import Reseed
from supervisor.child.process_snapshot import ProcessSnapshot, running_threads
from supervisor.child.sigterm import SigtermHandler
from supervisor.child.stack_dump import StackDumper
from supervisor.handler_api import watched
from supervisor.handler_api.binding import InvalidParameters, decode_parameters
from supervisor.handler_api.context import Cancelled, Context, ParentChannel, PermanentError
from supervisor.handler_api.interruption import Interruption
from supervisor.handler_api.library_log import LibraryLog
from supervisor.handler_api.registry import Handler, registry
from supervisor.handler_api.result import InvalidResult, encode_result
from supervisor.ipc.blocking_pipe import BlockingPipe
from supervisor.ipc.messages import ChildCommand, Finished, Logged, Ready, ResendResult, Run
from supervisor.ipc.send_errors import is_gone, reason
from supervisor.ipc.wire import ATTACH_ABOVE_BYTES
from supervisor.job import Blob, Failed, Job
from supervisor.linux.confinement import Restrictions
from supervisor.linux.memfd import create_sealed, read
from supervisor.linux.spare_descriptor import SpareDescriptor
from supervisor.linux.syscalls import become_subreaper, bytes_waiting, die_with_parent, set_dumpable
from supervisor.text.size import format_size

MAX_MESSAGE_BYTES = 8 * 1024
"""Bytes of an error message, text and traceback together."""
PARENT_POLL_INTERVAL = 0.0002
"""Seconds until one looks again whether a process has left, which nothing tells."""
THREAD_END_DELAY = 0.05
"""Seconds for a thread that was told to end to do so."""
OOM_SCORE = 500
"""Added to a child's badness: when memory runs out the kernel is to take a job, not the supervisor (proc(5))."""
_AROUND_HANDLERS = {__file__, watched.__file__, str(Path(__file__).with_name("event_loop.py"))}
"""Files whose frames stand above those of a handler in a traceback."""


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """What a newborn child is given: the descriptors of its pipe, output and stack file; group, parent and limits.

    `cgroup` is empty where it has none of its own.
    """

    pipe: int
    output: int
    stack: int
    cgroup: str
    supervisor: int
    restrictions: Restrictions
    library_log: LibraryLog
    generators: Sequence[Reseed]

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in (self.pipe, self.output, self.stack):
            os.close(descriptor)


def main(birth: ForkRequest, *, between: int) -> NoReturn:
    """Serve jobs until the pipe is closed.  Called in the freshly forked child; `between` is its first parent."""
    status = 1
    try:
        _become_child(birth)
        pipe: BlockingPipe[ChildCommand] = BlockingPipe(socket.socket(fileno=birth.pipe), ChildCommand)
        Worker(pipe, birth, between).serve()
        status = 0
    except (BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone, or wants no more of us
    except BaseException:  # noqa: BLE001 - whatever it is, the last thing we do is to say it
        traceback.print_exc()
    finally:
        _flush()
        # Not sys.exit: threads that a handler left behind would be waited for, and the zygote's exit handlers run.
        os._exit(status)


def _become_child(birth: ForkRequest) -> None:
    """A session and an output of its own."""
    set_dumpable(True)  # as a program is when it starts; the zygote is not (see `zygote_main`)
    os.setsid()
    os.dup2(birth.output, 1)
    os.dup2(birth.output, 2)
    os.close(birth.output)
    become_subreaper()
    _raise_oom_score()
    # As in every Python program.  Ctrl-C does not come here: it goes to the terminal's session, and this is another.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.enable(birth.stack)
    generators.reseed(birth.generators)
    birth.restrictions.enforce()


def _raise_oom_score() -> None:
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(str(OOM_SCORE).encode())
    except OSError:
        pass  # not permitted in some containers; a preference, no need


class Worker:
    """The child's main loop."""

    def __init__(self, pipe: BlockingPipe[ChildCommand], birth: ForkRequest, between: int) -> None:
        self._pipe = pipe
        self._supervisor = birth.supervisor
        self._intermediate_pid = between
        self._pid = os.getpid()
        self._spare_descriptor = SpareDescriptor()
        self._spare_descriptor.fill()
        self._interruption = Interruption()
        self._stack_dumper = StackDumper(self._interruption, birth.stack)
        self._sigterm = SigtermHandler(self._interruption, self._stack_dumper, birth.stack)
        self._home = _working_directory()
        self._niceness = os.getpriority(os.PRIO_PROCESS, 0)
        self._snapshot = ProcessSnapshot.of_this_process()
        self._threads = 0
        self._tasks_left = 0
        self._library_log = birth.library_log

    def serve(self) -> None:
        """Run job after job until the pipe is closed or this process is spent."""
        self._pipe.send(Ready())
        while isinstance(order := self._pipe.receive(), Run):
            finished = self._run(order)
            if not finished.reusable:
                return

    def _run(self, order: Run) -> Finished:
        job = order.job
        parameters = self._take_parameters(order)
        self._prepare(job, order)
        told = self._call(job, parameters, order)
        faulthandler.cancel_dump_traceback_later()  # it could end this process in the midst of the next job
        _flush()
        left = self._end_descendants()
        left += self._count_left_threads() + self._mind_tasks()
        reusable = not left and ProcessSnapshot.of_this_process() == self._snapshot
        if not self._pipe.is_intact:  # what stands in its place now is no way to the parent
            raise OSError("the handler closed the pipe to the supervisor")
        finished = Finished(
            reusable=reusable,
            cpu=time.process_time(),
            has_workdir=os.access(order.workdir, os.F_OK, follow_symlinks=False),
            has_output=not reusable or bytes_waiting(1) > 0,  # when it is reusable its outlets are what they were
        )
        return self._send(told, finished)

    def _end_descendants(self) -> int:
        """Leave none of what the handler started; return how many there still were."""
        if not descendants.exist():
            return 0
        with self._spare_descriptor.released():
            kept = tracker.pid()  # ends by itself, when nobody else holds its pipe any more
            ended = descendants.end_all(but=kept)
            if kept is not None:
                tracker.shut_down(kept)
                ended += descendants.end_all()
        if ended.killed:
            os.write(2, f"[killed {ended.killed} processes that the handler left behind]\n".encode())
        if ended.spared:
            os.write(2, f"[{ended.spared} processes that the handler left behind cannot be killed]\n".encode())
        # What the handler keeps may count on its tracker, and is unlinked by now.
        return ended.killed + ended.spared + (kept is not None)

    def _count_left_threads(self) -> int:
        """Say how many threads the handler has left running, and return that."""
        give_up_at = time.monotonic() + THREAD_END_DELAY
        while (left := running_threads() - self._snapshot.threads) > 0 and time.monotonic() < give_up_at:
            time.sleep(PARENT_POLL_INTERVAL)  # it may be on its way out
        if left > 0:
            os.write(2, f"[the handler left {left} threads running: its process takes no further job]\n".encode())
        return max(0, left)

    def _mind_tasks(self) -> int:
        """Log how many tasks of the handler's loop did not end when they were cancelled, and return that."""
        left, self._tasks_left = self._tasks_left, 0
        if left:
            os.write(
                2, f"[{left} asyncio tasks of the handler did not end: its process takes no further job]\n".encode()
            )
        return left

    def _take_parameters(self, order: Run) -> bytes:
        parameters = order.job.parameters
        if isinstance(parameters, Blob):
            return read(Blob(self._pipe.take_descriptor(), parameters.size, parameters.offset))
        return parameters

    def _prepare(self, job: Job, order: Run) -> None:
        """What an earlier job may have changed is as it was, and what this one is to have is there."""
        self._die_with_supervisor()
        self._sigterm.install()
        self._library_log.restore()
        self._go_home()
        _set_variables(
            MOBIUS_JOB_ID=job.job_id,
            MOBIUS_RUN_ID=job.run_id,
            MOBIUS_ACTION=job.action,
            MOBIUS_ATTEMPT=str(job.attempt),
            MOBIUS_WORKER_ID=order.worker_id,
        )
        self._set_niceness(order.nice)
        if order.threads != self._threads:
            threads.apply(order.threads)
            self._threads = order.threads

    def _go_home(self) -> None:
        try:
            os.chdir(self._home)
        except OSError as error:  # a later release may have taken the place of the one that we were started in
            os.write(2, f"[the folder {self._home} cannot be entered: {error.strerror}; jobs run in /]\n".encode())
            self._home = "/"
            os.chdir(self._home)

    def _die_with_supervisor(self) -> None:
        """Have the kernel end us with the supervisor, our parent once the process between us and the zygote has left.

        Not before there is a job: one who waits for a job sees the end of its pipe.
        """
        while (
            os.getppid() == self._intermediate_pid
        ):  # it bears others meanwhile; until it has left, it would be watched
            time.sleep(PARENT_POLL_INTERVAL)
        die_with_parent()
        if os.getppid() != self._supervisor:  # it died before we asked to be told
            os._exit(1)

    def _set_niceness(self, added: int) -> None:
        with contextlib.suppress(PermissionError):  # only root may become less nice than it was for an earlier job
            os.setpriority(os.PRIO_PROCESS, 0, self._niceness + added)

    def _call(self, job: Job, parameters: bytes, order: Run) -> Failed | bytes | None:
        """How the handler's call ended: a failure, or its encoded result."""
        handler = registry.get(job.action)
        if handler is None:
            return Failed("ActionNotRegistered", f"no handler is registered for the action {job.action!r}")
        with self._way_to_parent(job) as voice:
            try:
                arguments = handler.parameters.bind(parameters)
                if handler.parameters.context is not None:
                    arguments[handler.parameters.context] = self._context(job, parameters, order, voice)
            except InvalidParameters as error:
                return Failed("InvalidParameters", str(error))
            try:
                return encode_result(self._interruptible(handler, arguments))
            except BaseException as error:  # noqa: BLE001 - users' code may raise anything, SystemExit included
                return self._failure(error)

    @contextlib.contextmanager
    def _way_to_parent(self, job: Job) -> Iterator[ParentChannel]:
        """Let the job's context and its libraries send messages inside the block; afterwards the parent takes none."""
        # One for both: a finalizer that logs in the middle of an event would wait for its own thread in the pipe.
        voice = ParentChannel(job.job_id, self._pipe.send, self._interruption)
        self._library_log.use(lambda level, logger, text: voice.send(Logged(level, text, logger)))
        try:
            yield voice
        finally:
            self._library_log.use(None)
            voice.close()

    def _failure(self, error: BaseException) -> Failed:
        """What is told of a handler whose call ended with this."""
        if self._interruption.requested and _is_cancellation(error):  # otherwise it is the handler's own
            return Failed("Cancelled", "the handler stopped when it was asked to")
        if isinstance(error, InvalidResult):
            return Failed("InvalidResult", text_of(error))
        if isinstance(error, PermanentError):
            return Failed("fatal_error", describe(error, _AROUND_HANDLERS, MAX_MESSAGE_BYTES))
        return Failed(type_of(error), describe(error, _AROUND_HANDLERS, MAX_MESSAGE_BYTES))

    def _interruptible(self, handler: Handler, arguments: dict[str, Any]) -> Any:
        try:
            self._interruption.arm()
            if handler.is_async:
                return self._run_coroutine(handler, arguments)
            return handler.function(**arguments)
        finally:
            self._leave_if_forked()
            self._interruption.disarm()  # a `Cancelled` that comes at the last moment escapes from here

    def _leave_if_forked(self) -> None:
        """End this process if the handler has forked it: what comes after the handler is for the one that it was."""
        if os.getpid() != self._pid:
            descendants.leave(sys.exception())

    def _run_coroutine(self, handler: Handler, arguments: dict[str, Any]) -> Any:
        import asyncio  # only a child that has such a handler pays for it

        from supervisor.child import event_loop

        async def run() -> Any:
            task = asyncio.current_task()
            assert task is not None
            self._interruption.attach(asyncio.get_running_loop(), task)
            try:
                result = await self._interruption.watched(handler.function(**arguments))
                self._interruption.disarm()  # its result is there: what is left of the loop is ended within a time
                return result
            finally:
                self._leave_if_forked()  # before the loop is closed, whose descriptors it shares

        with self._stack_dumper.of_coroutines():
            result, self._tasks_left = event_loop.run(run())
        return result

    def _context(self, job: Job, parameters: bytes, order: Run, voice: ParentChannel) -> Context:
        return Context(
            job,
            worker_id=order.worker_id,
            workdir=order.workdir,
            parameters=decode_parameters(parameters),
            channel=voice,
            interruption=self._interruption,
        )

    def _send(self, told: Failed | bytes | None, finished: Finished) -> Finished:
        """Tell the outcome, which `finished` still lacks."""
        if isinstance(told, Failed):
            finished = replace(finished, failed=told)
        elif told is not None and len(told) <= ATTACH_ABOVE_BYTES // 2:
            finished = replace(finished, result=base64.b64encode(told))
        elif told is not None:
            return self._send_large(told, finished)
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
        descriptor = create_sealed("result", _base64_of(result))
        try:
            self._pipe.send(finished, descriptor)
            while isinstance(self._pipe.receive(), ResendResult):
                self._pipe.send(finished, descriptor)
        finally:
            os.close(descriptor)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return "/"


def _set_variables(**variables: str) -> None:
    """Have these in the environment; most of them are there from the job before."""
    for name, value in variables.items():
        if os.environ.get(name) != value:
            os.environ[name] = value.replace("\0", "")


def _base64_of(result: bytes) -> Iterator[bytes]:
    """In pieces, so that it is not in memory a third time."""
    piece = 3 * 1024 * 1024  # a multiple of three, or base64 would pad in the middle
    return (base64.b64encode(result[start : start + piece]) for start in range(0, len(result), piece))


def _is_cancellation(error: BaseException) -> bool:
    """Whether this is how a handler ends that was asked to stop and did nothing but that, be it in a group of tasks."""
    # Of a loop only where there is one: children without coroutines need not carry asyncio.
    of_a_loop = getattr(sys.modules.get("asyncio"), "CancelledError", Cancelled)
    return is_made_of(error, (Cancelled, of_a_loop))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A handler may have closed it, or replaced it by anything.
        with contextlib.suppress(Exception):
            stream.flush()
