"""Frames survive any cut; garbage is refused before it costs memory."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.ipc.messages import ChildMessage, EventEmitted, Finished, Forked, Logged, Ready
from supervisor.ipc.wire import MAX_FRAME_BYTES, Decoder, WireError, encode
from supervisor.job import Event, Failed


def messages() -> st.SearchStrategy[ChildMessage]:
    events = st.builds(Event, type=st.text(), payload=st.binary())
    finished = st.builds(
        Finished,
        result=st.none() | st.binary(),
        failed=st.none() | st.builds(Failed, error_type=st.text(), message=st.text()),
    )
    return st.one_of(
        st.builds(Forked, pid=st.integers(1, 2**22)),
        st.builds(Ready),
        st.builds(EventEmitted, event=events),
        st.builds(Logged, level=st.integers(0, 50), text=st.text()),
        finished,
    )


def cut(data: bytes, cutter: random.Random) -> list[bytes]:
    pieces = []
    while data:
        length = cutter.randint(1, len(data))
        pieces.append(data[:length])
        data = data[length:]
    return pieces


@given(st.lists(messages()), st.randoms(use_true_random=False))
def test_the_decoder_does_not_care_where_the_bytes_are_cut(sent: list[ChildMessage], cutter: random.Random) -> None:
    decoder: Decoder[ChildMessage] = Decoder(ChildMessage)

    received = [m for piece in cut(b"".join(map(encode, sent)), cutter) for m in decoder.feed(piece)]

    assert received == sent


@given(st.binary(min_size=4))
def test_garbage_is_rejected_or_buffered_but_never_breaks_the_decoder(garbage: bytes) -> None:
    decoder: Decoder[ChildMessage] = Decoder(ChildMessage)

    try:
        decoded = list(decoder.feed(garbage))
    except WireError:
        return

    assert all(isinstance(message, ChildMessage) for message in decoded)


def test_a_frame_that_announces_more_than_the_limit_is_refused_at_its_length() -> None:
    decoder: Decoder[ChildMessage] = Decoder(ChildMessage)

    with pytest.raises(WireError, match=str(MAX_FRAME_BYTES)):
        list(decoder.feed(b"GET / HTTP/1.1\r\n"))


def test_messages_before_garbage_are_still_delivered() -> None:
    decoder: Decoder[ChildMessage] = Decoder(ChildMessage)

    received = decoder.feed(encode(Ready()) + b"\xff\xff\xff\xff")

    assert next(received) == Ready()
    with pytest.raises(WireError):
        next(received)
