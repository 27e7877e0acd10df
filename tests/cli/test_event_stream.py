from __future__ import annotations

import json
import random

from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli.submit import EventDecoder, RunEvent

EVENTS = st.builds(
    RunEvent,
    type=st.sampled_from(["run_updated", "job_updated", "custom"]),
    seq=st.integers(0, 2**40),
    data=st.dictionaries(st.text(max_size=5), st.text(max_size=20)),
)


def frame(event: RunEvent) -> bytes:
    body = {"type": event.type, "run_id": "run_1", "seq": event.seq, "timestamp": "now", "data": event.data}
    return f"event: {event.type}\nid: {event.seq}\ndata: {json.dumps(body)}\n\n:keepalive\n\n".encode()


@given(st.lists(EVENTS, max_size=5), st.randoms(), st.booleans())
def test_the_decoder_does_not_care_where_the_bytes_are_cut(
    sent: list[RunEvent], chance: random.Random, carriage_returns: bool
) -> None:
    stream = b"".join(map(frame, sent))
    stream = stream.replace(b"\n", b"\r\n") if carriage_returns else stream
    decoder = EventDecoder()

    received = []
    while stream:
        length = chance.randint(1, 40)
        received += decoder.feed(stream[:length])
        stream = stream[length:]

    assert received == sent


def test_what_is_no_event_is_skipped() -> None:
    decoder = EventDecoder()

    received = decoder.feed(b'data: {broken\n\nretry: 5\n\ndata: [1]\n\ndata:{"type":"custom",\ndata: "seq":7}\n\n')

    assert received == [RunEvent(type="custom", seq=7, data={})]
