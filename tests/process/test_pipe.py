"""Both ends of a message pipe: frames of any size and descriptors arrive, and nothing leaks."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from supervisor.ipc import blocking_pipe as pipe_main
from supervisor.ipc.blocking_pipe import BlockingPipe
from supervisor.ipc.messages import ChildCommand, ChildMessage, EventEmitted, Finished, Logged, Ready, Run
from supervisor.ipc.wire import ATTACH_ABOVE_BYTES, SendTimeout, WireError, encode
from supervisor.job import Event, Job
from supervisor.process import pipe
from supervisor.process.pipe import MAX_DESCRIPTORS, Pipe, socket_pair
from tests.hoard import hoard
from tests.process_world import open_descriptors

NO_JOB = Job("j", "r", "w", "s", "a", 1, "q", b"{}", 10.0)


class Heard:
    """The parent's end of a pipe, what came out of it, and the raw other end."""

    gives_up = False

    def __init__(self) -> None:
        ours, self.theirs = socket_pair()
        self.messages: list[ChildMessage] = []
        self.ends: list[WireError | None] = []
        self.changed = asyncio.Event()
        self.pipe: Pipe[ChildMessage] = Pipe(ours, ChildMessage, self.on_message, self.on_end, gives_up=self.gives_up)

    def on_message(self, message: ChildMessage) -> None:
        self.messages.append(message)
        self.changed.set()

    def on_end(self, error: WireError | None) -> None:
        self.ends.append(error)
        self.changed.set()

    async def until(self, *, messages: int = 0, ends: int = 0) -> None:
        async with asyncio.timeout(10):
            while len(self.messages) < messages or len(self.ends) < ends:
                self.changed.clear()
                await self.changed.wait()

    def blocking(self) -> BlockingPipe[Run]:
        return BlockingPipe(self.theirs, ChildCommand)


class GivingUp(Heard):
    """One whose pipe drops what cannot be sent."""

    gives_up = True


@contextmanager
def hearing(kind: type[Heard] = Heard) -> Iterator[Heard]:
    """A pipe that is closed at the end of the block; then no descriptor is left of it, nor of what it carried."""
    before = open_descriptors()
    heard = kind()
    try:
        yield heard
    finally:
        heard.pipe.close()
        heard.theirs.close()
    assert not open_descriptors() - before


def event(number: int, size: int = 0) -> EventEmitted:
    return EventEmitted(Event("tick", str(number).encode().ljust(size)))


async def test_messages_arrive_in_their_order() -> None:
    with hearing() as heard:
        child = heard.blocking()
        for number in range(100):
            child.send(event(number))

        await heard.until(messages=100)

        assert heard.messages == [event(number) for number in range(100)]


async def test_a_message_may_be_larger_than_what_the_kernel_holds() -> None:
    result = Finished(b"x" * (2 * ATTACH_ABOVE_BYTES - 100))
    with hearing() as heard:
        sent = asyncio.create_task(asyncio.to_thread(heard.blocking().send, result))

        await heard.until(messages=1)

        assert heard.messages == [result]
        await sent


async def test_the_loop_goes_on_while_the_peer_does_not_read() -> None:
    big = Run(NO_JOB, "w" * ATTACH_ABOVE_BYTES, "")
    with hearing() as heard:
        for _ in range(5):
            heard.pipe.send(big)
        child = heard.blocking()

        received = await asyncio.to_thread(lambda: [child.receive() for _ in range(5)])

        assert received == [big] * 5


async def test_a_descriptor_travels_with_its_message_and_is_closed_here() -> None:
    with hearing() as heard:
        child = heard.blocking()
        descriptors = [memory_file(b"first"), memory_file(b"second")]

        for descriptor in descriptors:
            heard.pipe.send(Run(NO_JOB, "w", ""), descriptor)

        assert not any(is_open(descriptor) for descriptor in descriptors)
        for content in (b"first", b"second"):
            assert child.receive() == Run(NO_JOB, "w", "")
            taken = child.take_descriptor()
            assert os.pread(taken, 100, 0) == content
            assert not os.get_inheritable(taken)
            os.close(taken)


async def test_a_descriptor_comes_up_with_its_message() -> None:
    contents = []

    class Taking(Heard):
        def on_message(self, message: ChildMessage) -> None:
            taken = self.pipe.take_descriptor()
            contents.append(os.pread(taken, 100, 0))
            os.close(taken)
            super().on_message(message)

    with hearing(Taking) as heard:
        child = heard.blocking()
        for content in (b"first", b"second"):
            descriptor = memory_file(content)
            child.send(Finished(attached=True), descriptor)
            os.close(descriptor)

        await heard.until(messages=2)

        assert contents == [b"first", b"second"]


async def test_descriptors_that_nobody_takes_are_closed_with_the_pipe() -> None:
    with hearing() as heard:
        descriptor = memory_file(b"")
        heard.blocking().send(Ready(), descriptor, descriptor)
        os.close(descriptor)

        await heard.until(messages=1)


async def test_descriptors_without_end_are_a_breach() -> None:
    with hearing() as heard:
        child = heard.blocking()
        descriptor = memory_file(b"")
        for _ in range(MAX_DESCRIPTORS + 1):
            child.send(Ready(), descriptor)
        os.close(descriptor)

        await heard.until(ends=1)

        assert "no message announced" in str(heard.ends[0])


async def test_a_descriptor_that_was_announced_and_not_sent_is_a_breach() -> None:
    class Taking(Heard):
        def on_message(self, message: ChildMessage) -> None:
            super().on_message(message)
            self.pipe.take_descriptor()

    with hearing(Taking) as heard:
        heard.blocking().send(Finished(attached=True))

        await heard.until(ends=1)

        assert "announced a descriptor and sent none" in str(heard.ends[0])


async def test_a_paused_pipe_makes_its_peer_wait_until_it_is_resumed() -> None:
    done = threading.Event()

    def send_much() -> None:
        for number in range(64):
            child.send(event(number, 128 * 1024))
        done.set()

    with hearing() as heard:
        child = heard.blocking()
        heard.pipe.pause()
        heard.pipe.pause()
        sending = asyncio.create_task(asyncio.to_thread(send_much))
        await until_full(heard.theirs)

        assert heard.messages == []
        assert not done.is_set()
        heard.pipe.resume()
        heard.pipe.resume()
        await heard.until(messages=64)
        await sending
        assert heard.messages == [event(number, 128 * 1024) for number in range(64)]


async def until_full(end: socket.socket) -> None:
    """Until a send on `end` would wait.  Of this nobody tells but the kernel, when it is asked."""
    async with asyncio.timeout(10):
        while select.select([], [end], [], 0)[1]:
            await asyncio.sleep(0)


async def test_what_was_said_before_the_peer_died_can_be_drained() -> None:
    with hearing() as heard:
        heard.pipe.pause()
        child = heard.blocking()
        for number in range(1000):
            child.send(event(number, 100))
        heard.theirs.close()

        heard.pipe.drain()

        assert heard.messages == [event(number, 100) for number in range(1000)]


async def test_draining_ends_though_somebody_goes_on_talking() -> None:
    stop = threading.Event()

    def talk() -> None:
        while not stop.is_set():
            child.send(event(1, 10_000))

    with hearing() as heard:
        child = heard.blocking()
        talker = threading.Thread(target=talk)
        talker.start()
        await heard.until(messages=1)

        heard.pipe.drain()

        stop.set()
        while talker.is_alive():
            heard.pipe.drain()
        talker.join()


async def test_the_end_of_file_is_told_once() -> None:
    with hearing() as heard:
        heard.blocking().send(Ready())
        heard.theirs.close()

        await heard.until(messages=1, ends=1)
        heard.pipe.drain()
        heard.pipe.resume()
        await asyncio.sleep(0)

        assert heard.ends == [None]


async def test_a_reset_connection_is_an_end_of_file() -> None:
    with hearing() as heard:
        heard.pipe.send(Run(NO_JOB, "w", ""))
        heard.theirs.close()  # what it never read makes this a reset

        await heard.until(ends=1)

        assert heard.ends == [None]


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n", b"\x00\x00\x00\x01\xc1", encode(Run(NO_JOB, "w", ""))])
async def test_garbage_is_told_once_and_nothing_after_it_is_heard(garbage: bytes) -> None:
    with hearing() as heard:
        heard.theirs.sendall(encode(Ready()) + garbage + encode(Logged(30, "too late")))

        await heard.until(messages=1, ends=1)
        heard.theirs.sendall(garbage)
        heard.pipe.drain()

        assert heard.messages == [Ready()]
        assert [type(end) for end in heard.ends] == [WireError]


async def test_a_listener_that_closes_the_pipe_hears_nothing_more() -> None:
    class Closing(Heard):
        def on_message(self, message: ChildMessage) -> None:
            super().on_message(message)
            self.pipe.close()

    with hearing(Closing) as heard:
        heard.theirs.sendall(encode(Ready()) * 3)

        await heard.until(messages=1)

        assert heard.messages == [Ready()]
        assert heard.ends == []


async def test_what_is_sent_to_a_dead_peer_is_dropped_with_its_descriptors() -> None:
    with hearing() as heard:
        heard.theirs.close()
        descriptor = memory_file(b"")

        heard.pipe.send(Run(NO_JOB, "w", ""), descriptor)
        await heard.until(ends=1)
        second = memory_file(b"")
        heard.pipe.send(Run(NO_JOB, "w", ""), second)

        assert not is_open(descriptor)
        assert not is_open(second)


async def test_what_still_waits_to_be_sent_is_dropped_with_its_descriptors_at_the_close() -> None:
    with hearing() as heard:
        for _ in range(5):
            heard.pipe.send(Run(NO_JOB, "w" * ATTACH_ABOVE_BYTES, ""), memory_file(b""))

        heard.pipe.close()
        heard.pipe.close()
        heard.pipe.send(Ready(), memory_file(b""))

    # and `hearing` counts what is left


async def test_what_the_kernel_refuses_to_send_is_sent_when_it_does_and_nothing_overtakes_it() -> None:
    with hearing() as heard, hoard() as relent:
        descriptor = memory_file(b"content")
        orders = [Run(NO_JOB, str(number), "") for number in range(3)]
        heard.pipe.send(orders[0], descriptor)
        heard.pipe.send(orders[1])
        heard.pipe.send(orders[2])
        assert not heard.pipe.is_drained

        relent()
        child = heard.blocking()
        received = await asyncio.to_thread(lambda: [child.receive() for _ in range(3)])
        taken = child.take_descriptor()

        assert received == orders
        assert heard.pipe.is_drained
        assert not is_open(descriptor)
        assert os.pread(taken, 100, 0) == b"content"
        os.close(taken)


async def test_what_the_kernel_never_sends_ends_the_pipe_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "SEND_RETRY_DELAYS", (0.0, 0.01))
    with hearing() as heard, hoard():
        descriptors = [memory_file(b""), memory_file(b"")]
        for descriptor in descriptors:
            heard.pipe.send(Run(NO_JOB, "w", ""), descriptor)

        await heard.until(ends=1)
        heard.pipe.send(Run(NO_JOB, "w", ""))

        (end,) = heard.ends
        assert isinstance(end, SendTimeout)
        assert str(end).startswith("could not be told what to do: Too many references")
        assert "raise the supervisor's limit of open files (LimitNOFILE=)" in str(end)
        assert heard.pipe.is_drained
        assert not any(map(is_open, descriptors))


async def test_the_patience_with_the_kernel_begins_anew_with_each_message_that_it_sends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipe, "SEND_RETRY_DELAYS", (0.01,))
    with hearing() as heard:
        for _ in range(3):
            with hoard() as relent:
                heard.pipe.send(Run(NO_JOB, "w", ""), memory_file(b""))
                assert not heard.pipe.is_drained
                relent()
            child = heard.blocking()
            await asyncio.to_thread(child.receive)
            os.close(child.take_descriptor())

        assert heard.ends == []


async def test_a_pipe_that_is_closed_does_not_go_on_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "SEND_RETRY_DELAYS", (0.0, 0.0))
    with hearing() as heard, hoard():
        descriptor = memory_file(b"")
        heard.pipe.send(Run(NO_JOB, "w", ""), descriptor)

        heard.pipe.close()
        await asyncio.sleep(0.01)

        assert not is_open(descriptor)
        assert heard.ends == []


async def test_a_pipe_that_gives_up_drops_what_has_descriptors_when_it_is_refused() -> None:
    with hearing(GivingUp) as heard, hoard():
        descriptor = memory_file(b"")
        heard.pipe.send(Run(NO_JOB, "lost", ""), descriptor)
        heard.pipe.send(Run(NO_JOB, "kept", ""))

        assert not is_open(descriptor)
        assert heard.blocking().receive() == Run(NO_JOB, "kept", "")
        assert heard.ends == []


async def test_the_descriptor_of_a_message_that_is_sent_in_pieces_is_closed_once() -> None:
    big = Run(NO_JOB, "w" * ATTACH_ABOVE_BYTES, "")
    with hearing() as heard:
        for _ in range(3):
            heard.pipe.send(big)
        descriptor = memory_file(b"content")
        heard.pipe.send(big, descriptor)
        child = heard.blocking()

        received = [await asyncio.to_thread(child.receive) for _ in range(4)]
        taken = child.take_descriptor()  # which may have the number of ours

        assert received == [big] * 4
        assert os.pread(taken, 100, 0) == b"content"
        assert taken == descriptor or not is_open(descriptor)
        os.close(taken)


def test_the_blocking_end_tells_the_end_of_file_as_none() -> None:
    ours, theirs = socket_pair()
    child: BlockingPipe[Run] = BlockingPipe(theirs, ChildCommand)
    ours.sendall(encode(Run(NO_JOB, "w", "")))
    ours.close()

    assert [child.receive(), child.receive(), child.receive()] == [Run(NO_JOB, "w", ""), None, None]
    theirs.close()


def test_the_blocking_end_waits_for_a_kernel_that_refuses_to_send() -> None:
    ours, theirs = socket_pair()
    child: BlockingPipe[ChildCommand] = BlockingPipe(theirs, ChildCommand)
    parent: BlockingPipe[ChildMessage] = BlockingPipe(ours, ChildMessage)
    with ours, theirs, hoard() as relent, open(memory_file(b"content"), "rb") as file:
        threading.Timer(0.05, relent).start()
        child.send(Finished(attached=True), file.fileno())

        assert parent.receive() == Finished(attached=True)
        taken = parent.take_descriptor()
        assert os.pread(taken, 100, 0) == b"content"
        os.close(taken)


def test_what_the_kernel_never_sends_for_the_blocking_end_is_an_error_and_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipe_main, "SEND_RETRY_DELAYS", (0.0, 0.01))
    ours, theirs = socket_pair()
    child: BlockingPipe[ChildCommand] = BlockingPipe(theirs, ChildCommand)
    parent: BlockingPipe[ChildMessage] = BlockingPipe(ours, ChildMessage)
    with ours, theirs, hoard(), open(memory_file(b""), "rb") as file:
        with pytest.raises(OSError, match="Too many references"):
            child.send(Finished(attached=True), file.fileno())
        child.send(Finished(b"MQ=="))

        assert parent.receive() == Finished(b"MQ==")


def test_threads_do_not_mix_their_frames() -> None:
    ours, theirs = socket_pair()
    child: BlockingPipe[Run] = BlockingPipe(theirs, ChildCommand)
    parent: BlockingPipe[ChildMessage] = BlockingPipe(ours, ChildMessage)

    def talk(number: int) -> None:
        for _ in range(50):
            child.send(event(number, 50_000))

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()

    received = [parent.receive() for _ in range(200)]

    for thread in threads:
        thread.join()
    assert all(received.count(event(number, 50_000)) == 50 for number in range(4))
    ours.close()
    theirs.close()


def test_the_blocking_end_notices_that_its_descriptor_was_replaced() -> None:
    ours, theirs = socket_pair()
    child: BlockingPipe[Run] = BlockingPipe(theirs, ChildCommand)
    assert child.is_intact

    os.dup2(ours.fileno(), child.fileno())
    replaced = child.is_intact
    os.close(child.fileno())

    assert not replaced
    assert not child.is_intact
    theirs.detach()
    ours.close()


def test_sending_to_nobody_is_an_error_of_the_system() -> None:
    ours, theirs = socket_pair()
    child: BlockingPipe[Run] = BlockingPipe(theirs, ChildCommand)
    ours.close()

    with pytest.raises(BrokenPipeError):
        child.send(Ready())

    theirs.close()


def test_both_ends_are_closed_in_programs_that_are_started() -> None:
    ours, theirs = socket_pair()
    with ours, theirs:
        assert not ours.get_inheritable()
        assert not theirs.get_inheritable()


def memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, content)
    return descriptor


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
