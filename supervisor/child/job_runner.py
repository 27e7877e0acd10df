"""Runs the handler of one job in the main thread of a child: arguments, call, result, error and logs.

The outcome is a value; `child_main` sends it to the parent.  Tested by tests/process/test_child.py.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from supervisor.child import descendants
from supervisor.child.error_text import describe, is_made_of, text_of, type_of
from supervisor.child.stack_dump import StackDumper
from supervisor.handler_api import watched
from supervisor.handler_api.binding import InvalidParameters, decode_parameters
from supervisor.handler_api.context import Cancelled, Context, ParentChannel, PermanentError
from supervisor.handler_api.interruption import Interruption
from supervisor.handler_api.library_log import LibraryLog
from supervisor.handler_api.registry import Handler, registry
from supervisor.handler_api.result import InvalidResult, encode_result
from supervisor.ipc.blocking_pipe import BlockingPipe
from supervisor.ipc.messages import ChildCommand, Logged, Run
from supervisor.job import Failed, Job

MAX_ERROR_BYTES = 8 * 1024
"""Bytes of an error message: the text and the traceback together."""
_FILES_ABOVE_HANDLER = {__file__, watched.__file__, str(Path(__file__).with_name("event_loop.py"))}
"""Files of the program whose frames stand above the frames of a handler in a traceback."""


class JobRunner:
    """Calls handlers, one job at a time.  `SIGTERM` reaches a handler through `interruption`."""

    def __init__(
        self,
        pipe: BlockingPipe[ChildCommand],
        interruption: Interruption,
        stack_dumper: StackDumper,
        library_log: LibraryLog,
    ) -> None:
        self._pipe = pipe
        self._pid = os.getpid()
        self._interruption = interruption
        self._stack_dumper = stack_dumper
        self._library_log = library_log
        self.tasks_left = 0
        """Number of asyncio tasks of the last job that did not end when they were cancelled."""

    def run(self, order: Run, parameters: bytes) -> Failed | bytes | None:
        """Return a failure, or the encoded result of the handler."""
        self.tasks_left = 0
        job = order.job
        handler = registry.get(job.action)
        if handler is None:
            return Failed("ActionNotRegistered", f"no handler is registered for the action {job.action!r}")
        with self._channel(job) as channel:
            try:
                arguments = handler.parameters.bind(parameters)
                if handler.parameters.context is not None:
                    arguments[handler.parameters.context] = self._context(order, parameters, channel)
            except InvalidParameters as error:
                return Failed("InvalidParameters", str(error))
            try:
                return encode_result(self._call(handler, arguments))
            except BaseException as error:  # noqa: BLE001 - a handler may raise anything, SystemExit included
                return self._failure(error)

    @contextlib.contextmanager
    def _channel(self, job: Job) -> Iterator[ParentChannel]:
        """Let the context of the job and the loggers of libraries send messages until the block ends."""
        # Both share one channel.  With two, a finalizer that logs while an event is sent would deadlock: it would
        # wait for a lock of the pipe that its own thread holds.
        channel = ParentChannel(job.job_id, self._pipe.send, self._interruption)
        self._library_log.use(lambda level, logger, text: channel.send(Logged(level, text, logger)))
        try:
            yield channel
        finally:
            self._library_log.use(None)
            channel.close()

    def _context(self, order: Run, parameters: bytes, channel: ParentChannel) -> Context:
        return Context(
            order.job,
            worker_id=order.worker_id,
            workdir=order.workdir,
            parameters=decode_parameters(parameters),
            channel=channel,
            interruption=self._interruption,
        )

    def _call(self, handler: Handler, arguments: dict[str, Any]) -> Any:
        try:
            self._interruption.arm()
            if handler.is_async:
                return self._run_coroutine(handler, arguments)
            return handler.function(**arguments)
        finally:
            self._exit_if_forked()
            self._interruption.disarm()  # a `Cancelled` that is raised at the last moment escapes from here

    def _run_coroutine(self, handler: Handler, arguments: dict[str, Any]) -> Any:
        import asyncio  # imported here: a child without `async def` handlers does not load it

        from supervisor.child import event_loop

        async def run() -> Any:
            task = asyncio.current_task()
            assert task is not None
            self._interruption.attach(asyncio.get_running_loop(), task)
            try:
                result = await self._interruption.watched(handler.function(**arguments))
                self._interruption.disarm()  # the result is complete: a cancellation must not discard it any more
                return result
            finally:
                self._exit_if_forked()  # before the loop closes: a forked process shares its descriptors

        with self._stack_dumper.of_coroutines():
            result, self.tasks_left = event_loop.run(run())
        return result

    def _exit_if_forked(self) -> None:
        """End this process if the handler forked it and returned in both processes; only the child may go on."""
        if os.getpid() != self._pid:
            descendants.exit_forked_process(sys.exception())

    def _failure(self, error: BaseException) -> Failed:
        """Return the failure to report for an exception that a handler raised."""
        if self._interruption.requested and _is_cancellation(error):  # otherwise the handler raised it by itself
            return Failed("Cancelled", "the handler stopped when it was asked to")
        if isinstance(error, InvalidResult):
            return Failed("InvalidResult", text_of(error))
        if isinstance(error, PermanentError):
            return Failed("fatal_error", describe(error, _FILES_ABOVE_HANDLER, MAX_ERROR_BYTES))
        return Failed(type_of(error), describe(error, _FILES_ABOVE_HANDLER, MAX_ERROR_BYTES))


def _is_cancellation(error: BaseException) -> bool:
    """True if the error is `Cancelled`, asyncio's `CancelledError`, or an exception group of nothing else."""
    # A child without coroutines has not loaded asyncio, and must not load it for this.
    cancelled_error = getattr(sys.modules.get("asyncio"), "CancelledError", Cancelled)
    return is_made_of(error, (Cancelled, cancelled_error))
