from __future__ import annotations

import json

from supervisor.attempt.job_output import FORWARD_BURST_BYTES, FORWARD_BYTES_PER_SECOND, OutputForwarder
from supervisor.job import Event, is_valid


def lines(events: list[Event]) -> list[str]:
    return [json.loads(event.payload)["line"] for event in events]


def test_lines_that_come_together_are_one_event() -> None:
    forwarding = OutputForwarder(0.0)
    forwarding.add("one", 0.0)
    forwarding.add("two", 0.1)

    (event,) = forwarding.events()

    assert event.type == "log"
    assert json.loads(event.payload) == {"stream": "output", "line": "one\ntwo"}
    assert forwarding.events() == []
    assert forwarding.is_empty


def test_every_event_is_one_that_the_server_takes() -> None:
    forwarding = OutputForwarder(0.0)
    printed = "\x01\u2028é" * 4000
    forwarding.add(printed, 0.0)

    events = forwarding.events()

    assert len(events) > 1
    assert all(map(is_valid, events))
    assert "".join(lines(events)) == printed


def test_what_is_above_the_rate_is_dropped_and_counted() -> None:
    forwarding = OutputForwarder(0.0)
    line = "x" * 1023
    for _ in range(FORWARD_BURST_BYTES // 1024 + 7):
        forwarding.add(line, 0.0)

    first = "".join(lines(forwarding.events())).split("\n")

    assert first.count(line) <= FORWARD_BURST_BYTES // 1024
    assert first[-1] == "[7 lines not forwarded: they came too fast]"
    for _ in range(2 * FORWARD_BYTES_PER_SECOND // 1024):
        forwarding.add(line, 1.0)
    assert "[16 lines not forwarded: they came too fast]" in "".join(lines(forwarding.events()))


def test_without_room_in_the_outbox_a_line_is_dropped() -> None:
    forwarding = OutputForwarder(0.0)
    forwarding.add("lost", 0.0, has_room=False)
    forwarding.add("kept", 0.0)

    assert lines(forwarding.events()) == ["[1 lines not forwarded: they came too fast]\nkept"]
