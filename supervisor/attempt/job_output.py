"""What one job says while it runs: events, which go to the server, and what it logs and prints, which our log gets.

Runs in the parent.  It is made when a job first says something: most say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from supervisor.attempt.config import JobConfig
from supervisor.attempt.event_sender import EventSender
from supervisor.attempt.stop import StopRequest
from supervisor.concurrency.helpers import HelperTasks
from supervisor.concurrency.token_bucket import TokenBucket
from supervisor.job import MAX_PAYLOAD_BYTES, Event
from supervisor.stats import Stats
from supervisor.text.log_level import known_level


class JobOutput:
    """That of one attempt; told by it."""

    def __init__(
        self,
        courier: Callable[[], EventSender],
        *,
        rules: JobConfig,
        stats: Stats,
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
        self._stats = stats
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


FORWARD_DELAY = 0.25
"""Seconds for which lines are collected."""
FORWARD_BYTES_PER_SECOND = 16 * 1024
"""Characters a second that are forwarded without a limit of time."""
FORWARD_BURST_BYTES = 64 * 1024
"""Characters that are forwarded at once."""
STREAM = "output"
"""Standard output and standard error are one stream, in the order in which they were written."""


class OutputForwarder:
    """The lines of one job that wait to be forwarded."""

    def __init__(self, now: float) -> None:
        self._lines: list[str] = []
        self._dropped = 0
        self._bucket = TokenBucket(rate=FORWARD_BYTES_PER_SECOND, burst=FORWARD_BURST_BYTES, now=now)

    @property
    def is_empty(self) -> bool:
        return not self._lines and not self._dropped

    def add(self, line: str, now: float, *, has_room: bool = True) -> None:
        """Take a line; without room for it in the outbox it is dropped."""
        if has_room and self._bucket.take(len(line) + 1, now):
            self._dropped_event()
            self._lines.append(line)
        else:
            self._dropped += 1

    def events(self) -> list[Event]:
        """What was taken since the last time."""
        self._dropped_event()
        lines, self._lines = self._lines, []
        return [Event("log", payload) for payload in _payloads("\n".join(lines))] if lines else []

    def _dropped_event(self) -> None:
        if self._dropped:
            self._lines.append(f"[{self._dropped} lines not forwarded: they came too fast]")
            self._dropped = 0


def _payloads(text: str) -> Iterator[bytes]:
    """As few as will do: control characters may take six times their room."""
    payload = msgspec.json.encode({"stream": STREAM, "line": text})
    if len(payload) <= MAX_PAYLOAD_BYTES:
        yield payload
    else:
        yield from _payloads(text[: len(text) // 2])
        yield from _payloads(text[len(text) // 2 :])


LOG_BURST_BYTES = 256 * 1024
"""Characters that may be said at once."""
LOG_BYTES_PER_SECOND = 64 * 1024
"""Characters a second that are logged without a limit of time."""
LINE_OVERHEAD_BYTES = 100
"""Characters that each line counts for, beside its text: its time, its ids."""


class LogRateLimit:
    """That of one job."""

    def __init__(self, now: float) -> None:
        self._bucket = TokenBucket(rate=LOG_BYTES_PER_SECOND, burst=LOG_BURST_BYTES, now=now)
        self._dropped = 0

    def has_room(self, text: str, now: float) -> bool:
        """Whether this line may be logged; otherwise it counts as dropped."""
        if self._bucket.take(LINE_OVERHEAD_BYTES + len(text), now):
            return True
        self._dropped += 1
        return False

    def take_dropped(self) -> str | None:
        """A sentence on what was dropped since the last time, if anything was."""
        dropped, self._dropped = self._dropped, 0
        return (
            f"[{dropped} lines of the handler dropped: more than {LOG_BYTES_PER_SECOND} characters a second]"
            if dropped
            else None
        )
