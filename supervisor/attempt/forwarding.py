"""What a job prints, made into `log` events.  Pure: no I/O, callers say what time it is.

Lines that come soon after each other become one event.  More than the rate is dropped, and said so: a handler that
prints in a loop must not keep the server, or its own events, waiting.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from supervisor.job import MAX_PAYLOAD_BYTES, Event
from supervisor.concurrency.token_bucket import TokenBucket

FORWARD_DELAY = 0.25
"""Seconds for which lines are collected."""
FORWARD_BYTES_PER_SECOND = 16 * 1024
"""Characters a second that are forwarded for ever."""
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
