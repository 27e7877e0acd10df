"""What is printed arrives line by line, bounded in speed and length, and its end is remembered."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.concurrency.token_bucket import TokenBucket
from supervisor.process.output import (
    MAX_LINE_BYTES,
    OUTPUT_BURST_BYTES,
    OUTPUT_BYTES_PER_SECOND,
    OUTPUT_READ_BYTES,
    OUTPUT_TAIL_BYTES,
    Output,
)


class Heard:
    """An output, what it said so far, and the end to print to."""

    def __init__(self) -> None:
        reading, self.descriptor = os.pipe()
        self.lines: list[str] = []
        self.told = asyncio.Event()
        self.output = Output(reading, self._on_line)

    def _on_line(self, line: str) -> None:
        self.lines.append(line)
        self.told.set()

    def print(self, text: bytes) -> None:
        os.write(self.descriptor, text)


@contextmanager
def hearing() -> Iterator[Heard]:
    heard = Heard()
    try:
        yield heard
    finally:
        heard.output.close()
        os.close(heard.descriptor)


async def test_a_line_is_told_as_soon_as_it_is_printed() -> None:
    with hearing() as heard:
        heard.print(b"page 1\npage")

        await heard.told.wait()

        assert heard.lines == ["page 1"]


async def test_a_line_may_come_in_pieces() -> None:
    with hearing() as heard:
        for piece in (b"pa", b"ge \xc3", b"\xa4\npage", b" 2\n"):
            heard.print(piece)
            heard.output._read()

        assert heard.lines == ["page ä", "page 2"]


async def test_draining_tells_the_last_line_without_its_newline() -> None:
    with hearing() as heard:
        heard.print(b"page 1\r\n\npage 2")

        heard.output.drain()
        heard.output.drain()

        assert heard.lines == ["page 1", "", "page 2"]


async def test_what_was_printed_before_the_end_of_file_can_still_be_drained() -> None:
    reading, writing = os.pipe()
    lines: list[str] = []
    output = Output(reading, lines.append)
    os.write(writing, b"last words")
    os.close(writing)

    output.drain()

    assert lines == ["last words"]
    output.close()


async def test_bytes_that_are_no_text_are_shown_escaped() -> None:
    with hearing() as heard:
        heard.print(b"\xff\xfe\n")

        heard.output.drain()

        assert heard.lines == ["\\xff\\xfe"]


async def test_a_line_that_is_too_long_is_told_whole_in_pieces() -> None:
    with hearing() as heard:
        heard.print(b"x" * (2 * MAX_LINE_BYTES + 1) + b"\nnext\n")

        heard.output.drain()

        assert [len(line) for line in heard.lines] == [MAX_LINE_BYTES, MAX_LINE_BYTES, 1, len("next")]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that does not run: `Output` only registers with it."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


PRINTED = [
    b"",
    b"a",
    b"line",
    b"x" * MAX_LINE_BYTES,
    b"y" * 5000,
    b"\r",
    b"\r10 %\r20 %",
    b"30 %\r    \r",
    b"z" * 5000 + b"\rend",
]


@given(st.lists(st.sampled_from(PRINTED)), st.randoms())
def test_lines_do_not_depend_on_where_the_bytes_are_cut(
    loop: asyncio.AbstractEventLoop, printed: list[bytes], cutter: random.Random
) -> None:
    text = b"\n".join(printed)
    pieces = sorted({0, len(text), *(cutter.randint(0, len(text)) for _ in range(5))})

    whole = loop.run_until_complete(lines_of([text]))
    cut = loop.run_until_complete(lines_of([text[a:b] for a, b in itertools.pairwise(pieces)]))

    assert cut == whole
    if b"\r" not in text:
        assert "".join(whole) == text.replace(b"\n", b"").decode()


async def lines_of(pieces: list[bytes]) -> list[str]:
    with hearing() as heard:
        for piece in pieces:
            for start in range(0, len(piece), OUTPUT_READ_BYTES):
                heard.print(piece[start : start + OUTPUT_READ_BYTES])
                heard.output._read()
        heard.output.drain()
    return heard.lines


def bucket(tokens: float) -> TokenBucket:
    """One that holds so much, and hardly gets any more during a test."""
    return TokenBucket(rate=1e-9, burst=tokens, now=0.0)


async def test_a_flood_is_dropped_and_told_how_much_it_was() -> None:
    chunk = b"flood\n" * 4096
    with hearing() as heard:
        heard.output._allowance = bucket(OUTPUT_BURST_BYTES)
        for _ in range(40):
            heard.print(chunk)
            heard.output._read()
        heard.output.drain()

    *lines, last = heard.lines
    told = len(lines) * len(b"flood\n")
    assert last == f"[{40 * len(chunk) - told} bytes of output dropped: more than {OUTPUT_BYTES_PER_SECOND} a second]"
    assert OUTPUT_BURST_BYTES - len(chunk) <= told <= OUTPUT_BURST_BYTES


async def test_after_a_flood_lines_are_told_again() -> None:
    with hearing() as heard:
        heard.output._allowance = bucket(0.0)  # the flood
        heard.print(b"x" * OUTPUT_READ_BYTES)
        heard.output._read()
        heard.output._allowance = bucket(100.0)  # a moment later

        heard.print(b"calm\n")
        heard.output._read()

    assert heard.lines == [
        f"[{OUTPUT_READ_BYTES} bytes of output dropped: more than {OUTPUT_BYTES_PER_SECOND} a second]",
        "calm",
    ]


async def test_the_last_lines_are_remembered_though_they_were_dropped() -> None:
    with hearing() as heard:
        heard.output._allowance = bucket(0.0)
        heard.print(b"one\ntwo\nthree")

        heard.output.drain()

    assert heard.output.last_lines(2) == ["two", "three"]


async def test_no_more_is_remembered_than_the_tail() -> None:
    with hearing() as heard:
        heard.print(b"a" * (3 * OUTPUT_TAIL_BYTES))

        heard.output.drain()

    assert sum(map(len, heard.output.last_lines())) == OUTPUT_TAIL_BYTES


async def test_what_was_printed_before_a_job_is_forgotten() -> None:
    with hearing() as heard:
        heard.print(b"the job before\n")
        heard.output.drain()

        heard.output.start_job()
        heard.print(b"this job\n")
        heard.output.drain()

    assert heard.output.last_lines() == ["this job"]


async def test_somebody_who_never_stops_printing_cannot_keep_the_loop() -> None:
    with hearing() as heard:
        stop = threading.Event()
        printer = threading.Thread(target=print_until, args=(stop, heard.descriptor))
        printer.start()
        await heard.told.wait()

        heard.output.drain()

        stop.set()
        while printer.is_alive():
            heard.output.drain()
        printer.join()


def print_until(stop: threading.Event, descriptor: int) -> None:
    while not stop.is_set():
        os.write(descriptor, b"spam\n" * 1000)


async def test_closing_twice_closes_no_other_descriptor() -> None:
    with hearing() as heard:
        heard.output.close()
        other = os.open("/dev/null", os.O_RDONLY)

        heard.output.close()

        os.fstat(other)
        os.close(other)


async def test_of_a_progress_bar_the_last_picture_is_told() -> None:
    with hearing() as heard:
        heard.print(b"before\n" + b"".join(b"\r%d %%" % number for number in range(100)) + b"\r      \r\nafter\r\n")
        heard.output._read()

        assert heard.lines == ["before", "99 %", "after"]
        assert heard.output.last_lines() == ["before", "99 %", "after"]


@pytest.mark.parametrize("end", [b"", b"\r"])
async def test_the_newest_picture_is_the_last_line_while_the_bar_goes_on(end: bytes) -> None:
    with hearing() as heard:
        heard.print(b"\r 10 %\r 20 %" + end)
        heard.output._read()

        assert heard.lines == []
        assert heard.output.last_lines(1) == [" 20 %"]

        heard.output.drain()
        assert heard.lines == [" 20 %"]


async def test_of_a_bar_that_goes_on_a_picture_is_told_now_and_then_and_none_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("supervisor.process.output.PICTURE_INTERVAL", 0.0)
    with hearing() as heard:
        for printed in (b"\r 10 %", b"\r 20 %", b"\n", b"\r 30 %", b"\r 40 %\n"):
            heard.print(printed)
            heard.output._read()

    assert heard.lines == [" 10 %", " 20 %", " 30 %", " 40 %"]
