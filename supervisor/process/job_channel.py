"""The talk with one child about its jobs: the order, what is said while it runs, and how it went.

Runs in the parent.  It knows nothing of processes: that the child is gone is for others to say.  What the child says
is not trusted: what comes out of turn, or could not be said by ours, raises `WireError`, which ends the child.
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
    """What the child said could not be taken in, for a bug of ours.  Caught by the child, which ends its process."""


class JobReply(msgspec.Struct, frozen=True):
    """What a child said of its job; it takes another one only when it is `reusable`."""

    outcome: Outcome
    reusable: bool
    has_workdir: bool = False


class JobListener(Protocol):
    """What an attempt hears of its child while its job runs.  Called in the loop; must not block or raise."""

    def on_event(self, event: Event) -> None: ...
    def on_log(self, level: int, text: str, logger: str) -> None: ...
    def on_line(self, line: str) -> None: ...


class JobChannel:
    """One job after the other; `on_end` is called when one is over, just before whoever waits for it learns of that."""

    def __init__(self, pipe: Pipe[ChildMessage], reserve: SpareDescriptor, on_end: Callable[[Finished], None]) -> None:
        self.listener: JobListener | None = None
        """Who wants to hear of the job that runs."""
        self._pipe = pipe
        self._result_receiver = ResultReceiver(pipe, reserve)
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._reply: asyncio.Future[JobReply] | None = None

    async def run(self, order: Run, listener: JobListener) -> JobReply:
        """Have a job run and wait for what is said of it, or raise what `break_off` says.

        It takes over the parameters that are in a file.
        """
        self.listener = listener
        self._reply = self._loop.create_future()
        self._result_receiver.prepare()
        self._pipe.resume()  # the last job may have been over while it was not read
        self._send(order)
        try:
            return await self._reply
        except asyncio.CancelledError:
            _drop_answer(self._reply)
            raise
        finally:
            self.listener = None

    def abort(self, why: Exception) -> None:
        """Nothing more is said of the job that runs, if any: raise this where it is waited for."""
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(why)

    def fail(self, why: str) -> None:
        """The job that runs, if any, has failed through no fault of its own: the child is of no use any more."""
        if self._reply is not None and not self._reply.done():
            # Nobody knows how far it came, nor whether it has made its folder.
            self._reply.set_result(JobReply(Failed("SupervisorError", why), reusable=False, has_workdir=True))

    def receive(self, message: ChildMessage) -> None:
        """Take in what the child says while a job runs; raise `WireError` when it cannot be."""
        if self.listener is None:
            return  # `run` was cancelled: nobody wants to hear it, and the child is about to be killed
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
        if self._reply.done():  # what came along is closed with the pipe
            self._on_end(message)
            return
        outcome = message.failed or self._success(message)
        if outcome is not None:  # otherwise it is told once more
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


def _drop_answer(told: asyncio.Future[JobReply]) -> None:
    """Close the result that has come when nobody waits for it any more."""
    if told.cancelled() or told.exception() is not None:
        return
    match told.result().outcome:
        case Succeeded(Blob() as blob):
            blob.close()


log = structlog.get_logger("child")

RESULT_RETRY_DELAYS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds until a result is asked for again, each time that there was no room for it."""


class ResultReceiver:
    """Receives the results of one child."""

    def __init__(self, pipe: Pipe[ChildMessage], reserve: SpareDescriptor) -> None:
        self._pipe = pipe
        self._reserve = reserve
        self._asked_again = 0

    def prepare(self) -> None:
        """A job begins, which may have a result."""
        self._asked_again = 0  # a child that was asked again may have failed to send it
        self._pipe.spare_descriptor = None
        self._reserve.fill()

    def outcome(self) -> Succeeded | Failed | None:
        """The result that was announced just now; None when it comes once more.  Raises `WireError`."""
        try:
            descriptor = self._pipe.take_descriptor()
        except OSError as error:
            if self._asked_again < len(RESULT_RETRY_DELAYS):
                self._ask_again_after(RESULT_RETRY_DELAYS[self._asked_again], error)
                return None
            self._end()
            why = f"the result could not be received: {error.strerror}"
            return Failed("SupervisorError", f"{why}; raise the supervisor's limit of open files (LimitNOFILE=)")
        self._end()
        if not is_sealed(descriptor):
            os.close(descriptor)
            raise WireError("handed over a result that it could still change")
        return Succeeded(Blob(descriptor, os.fstat(descriptor).st_size))

    def _ask_again_after(self, pause: float, error: OSError) -> None:
        log.warning("no room for a result, which is asked for again", error=error.strerror, in_seconds=pause)
        self._asked_again += 1
        asyncio.get_running_loop().call_later(pause, self._ask_again)

    def _ask_again(self) -> None:
        self._reserve.fill()
        self._pipe.spare_descriptor = self._reserve
        self._pipe.send(ResendResult())

    def _end(self) -> None:
        self._asked_again = 0
        self._pipe.spare_descriptor = None
        self._pipe.send(ResultReceived())
