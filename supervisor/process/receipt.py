"""How a result that travels as a descriptor is received, also when there is hardly a descriptor left for it.

Runs in the parent.  The kernel drops a descriptor that finds no room here, but the child keeps its own until it is
told that ours has arrived: so it can be sent again.
"""

from __future__ import annotations

import asyncio
import os

import structlog

from supervisor.job import Blob, Failed, Succeeded
from supervisor.ipc.memfd import is_sealed
from supervisor.ipc.messages import ResendResult, ChildMessage, ResultReceived
from supervisor.process.pipe import Pipe
from supervisor.linux.spare_descriptor import SpareDescriptor
from supervisor.ipc.wire import WireError

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
