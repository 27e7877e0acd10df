"""The messages of one child about its jobs: the order, events and logs, and the outcome.  Runs in the parent.

The channel does not watch the process: `Child` calls `abort` when the child is gone.  Messages are not trusted: a
message out of turn, or one that no handler can cause, raises `WireError`, and `Child` then kills the process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog

from supervisor.ipc.messages import ChildMessage, EventEmitted, Finished, Logged, ResendResult, ResultReceived, Run
from supervisor.ipc.wire import WireError
from supervisor.job import Blob, Event, Failed, Outcome, Succeeded, is_valid
from supervisor.linux.memfd import is_sealed
from supervisor.linux.spare_descriptor import SpareDescriptor
from supervisor.process.pipe import Pipe


class MessageHandlingError(WireError):
    """A bug in the parent prevented the handling of a message.  Caught by `Child`, which kills its process."""


class JobReply(msgspec.Struct, frozen=True):
    """The end of a job as reported by its child; `reusable`: the child can run another job."""

    outcome: Outcome
    reusable: bool
    has_workdir: bool = False


class JobListener(Protocol):
    """Receives a job's events, logs and output lines.  Called in the loop; must not block or raise."""

    def on_event(self, event: Event) -> None: ...
    def on_log(self, level: int, text: str, logger: str) -> None: ...
    def on_line(self, line: str) -> None: ...


class JobChannel:
    """Runs one job after the other; `on_end` is called at the end of a job, before `run` returns."""

    def __init__(self, pipe: Pipe[ChildMessage], reserve: SpareDescriptor, on_end: Callable[[Finished], None]) -> None:
        self.listener: JobListener | None = None
        """The listener of the running job."""
        self._pipe = pipe
        self._result_receiver = ResultReceiver(pipe, reserve)
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._reply: asyncio.Future[JobReply] | None = None

    async def run(self, order: Run, listener: JobListener) -> JobReply:
        """Run a job and return its reply, or raise the exception given to `abort`.

        The call takes ownership of a parameters file.
        """
        self.listener = listener
        self._reply = self._loop.create_future()
        self._result_receiver.prepare()
        self._pipe.resume()  # the previous job may have ended while reading was paused
        self._send(order)
        try:
            return await self._reply
        except asyncio.CancelledError:
            _drop_reply(self._reply)
            raise
        finally:
            self.listener = None

    def abort(self, why: Exception) -> None:
        """Raise `why` in `run` if a job is running."""
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(why)

    def fail(self, why: str) -> None:
        """Fail the running job, if any, with a `SupervisorError`; its child is not reusable."""
        if self._reply is not None and not self._reply.done():
            # The job may have started, and may have created its folder.
            self._reply.set_result(JobReply(Failed("SupervisorError", why), reusable=False, has_workdir=True))

    def receive(self, message: ChildMessage) -> None:
        """Handle a message of the running job; raise `WireError` when it is invalid or its handling fails."""
        if self.listener is None:
            return  # `run` was cancelled, and the child is about to be killed
        try:
            self._dispatch(message, self.listener)
        except WireError:
            raise
        except Exception as error:
            raise MessageHandlingError(
                f"said what the supervisor could not take in ({type(error).__name__}: {error})"
            ) from error

    def _dispatch(self, message: ChildMessage, listener: JobListener) -> None:
        match message:
            case EventEmitted(event):
                if not is_valid(event):
                    raise WireError(
                        f"emitted what no handler can: type {event.type[:64]!r}, {len(event.payload)} bytes"
                    )
                listener.on_event(event)
            case Logged(level, text, logger):
                listener.on_log(level, text, logger)
            case Finished():
                self._finish(message)
            case _:
                raise WireError(f"said {type(message).__name__} while busy")

    def _finish(self, message: Finished) -> None:
        assert self._reply is not None
        if self._reply.done():  # an attached descriptor is closed with the pipe
            self._on_end(message)
            return
        outcome = message.failed or self._success(message)
        if outcome is not None:  # otherwise the child sends `Finished` again
            self._on_end(message)
            self._reply.set_result(JobReply(outcome, message.reusable, message.has_workdir))

    def _success(self, message: Finished) -> Outcome | None:
        return self._result_receiver.outcome() if message.attached else Succeeded(message.result)

    def _send(self, order: Run) -> None:
        parameters = order.job.parameters
        if isinstance(parameters, Blob):
            self._pipe.send(order, parameters.detach())
        else:
            self._pipe.send(order)


def _drop_reply(reply: asyncio.Future[JobReply]) -> None:
    """Close a result that arrived after `run` was cancelled."""
    if reply.cancelled() or reply.exception() is not None:
        return
    match reply.result().outcome:
        case Succeeded(Blob() as blob):
            blob.close()


log = structlog.get_logger("child")

RESULT_RETRY_DELAYS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds before each new request for a result that the parent had no free descriptor for."""


class ResultReceiver:
    """Receives the results of one child."""

    def __init__(self, pipe: Pipe[ChildMessage], reserve: SpareDescriptor) -> None:
        self._pipe = pipe
        self._reserve = reserve
        self._requests = 0

    def prepare(self) -> None:
        """Prepare for the result of a new job."""
        self._requests = 0  # the previous result may have been requested again and never sent
        self._pipe.spare_descriptor = None
        self._reserve.fill()

    def outcome(self) -> Succeeded | Failed | None:
        """Return the announced result, or None when it was requested again; raise `WireError` if it is not sealed."""
        try:
            descriptor = self._pipe.take_descriptor()
        except OSError as error:
            if self._requests < len(RESULT_RETRY_DELAYS):
                self._request_again_after(RESULT_RETRY_DELAYS[self._requests], error)
                return None
            self._end()
            why = f"the result could not be received: {error.strerror}"
            return Failed("SupervisorError", f"{why}; raise the supervisor's limit of open files (LimitNOFILE=)")
        self._end()
        if not is_sealed(descriptor):
            os.close(descriptor)
            raise WireError("handed over a result that it could still change")
        return Succeeded(Blob(descriptor, os.fstat(descriptor).st_size))

    def _request_again_after(self, pause: float, error: OSError) -> None:
        log.warning("no free descriptor for a result", error=error.strerror, in_seconds=pause)
        self._requests += 1
        asyncio.get_running_loop().call_later(pause, self._request_again)

    def _request_again(self) -> None:
        self._reserve.fill()
        self._pipe.spare_descriptor = self._reserve
        self._pipe.send(ResendResult())

    def _end(self) -> None:
        self._requests = 0
        self._pipe.spare_descriptor = None
        self._pipe.send(ResultReceived())
