"""What one job says while it runs: events, which go to the server, and what it logs and prints, which our log gets.

Runs in the parent.  It is made when a job first says something: most say nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from supervisor.job import Event
from supervisor.stats import Ledger
from supervisor.logs.log import known_level
from supervisor.concurrency.helpers import Alongside
from supervisor.attempt.event_sender import Courier
from supervisor.attempt.forwarding import SOON, Forwarding
from supervisor.attempt.handler_log import HandlerLog
from supervisor.attempt.stop import Stopping
from supervisor.attempt.config import Rules


class Speech:
    """That of one attempt; told by it."""

    def __init__(
        self,
        courier: Callable[[], Courier],
        *,
        rules: Rules,
        ledger: Ledger,
        stopping: Stopping,
        beside: Alongside,
        log: Any,
        now: Callable[[], float],
    ) -> None:
        """`courier` makes the one that takes the events, when there is one to take."""
        self.progress = b""
        """The payload of the newest `progress` event."""
        self.courier: Courier | None = None
        """Who has the events; None before the first one."""
        self._new_courier = courier
        self._mask = rules.mask
        self._ledger = ledger
        self._stopping = stopping
        self._beside = beside
        self._log = log
        self._now = now
        self._handler_log = HandlerLog(now())
        self._forwarding = Forwarding(now()) if rules.forwards_output else None

    def take_event(self, event: Event) -> None:
        """It has emitted an event."""
        if event.type == "progress":
            self.progress = event.payload
        if self.courier is None:
            self.courier = self._new_courier()
        # While it is being stopped it is read on: an `emit` that waits would wait out the grace.
        self.courier.take(event, hold_back=not self._stopping.is_under_way)

    def take_log(self, level: int, text: str, logger: str) -> None:
        """It, or a library that it uses, has logged a line."""
        self._ledger.log_bytes["log"] += len(text)
        if self._handler_log.has_room(text, self._now()):
            self._say_dropped()
            self._log.log(known_level(level), text, logger=logger)

    def take_line(self, line: str) -> None:
        """It has printed a line."""
        self._ledger.log_bytes["output"] += len(line) + 1
        self._log.info("printed", line=line)
        if self._forwarding is not None:
            if self._forwarding.is_empty:
                self._beside.start_after(SOON, self._forward_soon)
            has_room = self.courier is None or not self.courier.is_full
            self._forwarding.add(self._mask(line), self._now(), has_room=has_room)

    def end(self) -> None:
        """It says nothing more: what was collected goes on its way."""
        self._forward()
        self._say_dropped()

    def _say_dropped(self) -> None:
        """What was logged too fast to be kept."""
        if dropped := self._handler_log.take_dropped():
            self._log.warning(dropped, logger="handler")

    async def _forward_soon(self) -> None:
        self._forward()

    def _forward(self) -> None:
        """Send what was printed so far."""
        for event in self._forwarding.events() if self._forwarding else ():
            self.take_event(event)
