"""What one job says while it runs: events, which go to the server, and what it logs and prints, which our log gets.

Runs in the parent.  It is made when a job first says something: most say nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from supervisor.job import Event
from supervisor.stats import Stats
from supervisor.logs.log import known_level
from supervisor.concurrency.helpers import HelperTasks
from supervisor.attempt.event_sender import EventSender
from supervisor.attempt.forwarding import FORWARD_DELAY, OutputForwarder
from supervisor.attempt.handler_log import LogRateLimit
from supervisor.attempt.stop import StopRequest
from supervisor.attempt.config import JobConfig


class JobOutput:
    """That of one attempt; told by it."""

    def __init__(
        self,
        courier: Callable[[], EventSender],
        *,
        rules: JobConfig,
        ledger: Stats,
        stopping: StopRequest,
        beside: HelperTasks,
        log: Any,
        now: Callable[[], float],
    ) -> None:
        """`courier` makes the one that takes the events, when there is one to take."""
        self.progress = b""
        """The payload of the newest `progress` event."""
        self.event_sender: EventSender | None = None
        """Who has the events; None before the first one."""
        self._new_event_sender = courier
        self._mask = rules.mask
        self._stats = ledger
        self._stop_request = stopping
        self._helpers = beside
        self._log = log
        self._now = now
        self._log_limit = LogRateLimit(now())
        self._forwarder = OutputForwarder(now()) if rules.forwards_output else None

    def on_event(self, event: Event) -> None:
        """It has emitted an event."""
        if event.type == "progress":
            self.progress = event.payload
        if self.event_sender is None:
            self.event_sender = self._new_event_sender()
        # While it is being stopped it is read on: an `emit` that waits would wait out the grace.
        self.event_sender.add(event, hold_back=not self._stop_request.is_under_way)

    def on_log(self, level: int, text: str, logger: str) -> None:
        """It, or a library that it uses, has logged a line."""
        self._stats.log_bytes["log"] += len(text)
        if self._log_limit.has_room(text, self._now()):
            self._log_dropped()
            self._log.log(known_level(level), text, logger=logger)

    def on_line(self, line: str) -> None:
        """It has printed a line."""
        self._stats.log_bytes["output"] += len(line) + 1
        self._log.info("printed", line=line)
        if self._forwarder is not None:
            if self._forwarder.is_empty:
                self._helpers.start_after(FORWARD_DELAY, self._forward_soon)
            has_room = self.event_sender is None or not self.event_sender.is_full
            self._forwarder.add(self._mask(line), self._now(), has_room=has_room)

    def flush(self) -> None:
        """It says nothing more: what was collected goes on its way."""
        self._forward()
        self._log_dropped()

    def _log_dropped(self) -> None:
        """What was logged too fast to be kept."""
        if dropped := self._log_limit.take_dropped():
            self._log.warning(dropped, logger="handler")

    async def _forward_soon(self) -> None:
        self._forward()

    def _forward(self) -> None:
        """Send what was printed so far."""
        for event in self._forwarder.events() if self._forwarder else ():
            self.on_event(event)
