"""What is said of a job, by a peer that is the other end of a real pipe and says what it likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from supervisor.ipc.blocking_pipe import BlockingPipe
from supervisor.ipc.messages import (
    ChildCommand,
    ChildMessage,
    EventEmitted,
    Finished,
    Logged,
    Ready,
    ResultReceived,
    Run,
)
from supervisor.ipc.wire import WireError
from supervisor.job import Blob, Event, Failed, Job, Succeeded
from supervisor.linux.memfd import create_sealed
from supervisor.linux.spare_descriptor import SpareDescriptor
from supervisor.process.job_channel import JobChannel, JobReply, MessageHandlingError
from supervisor.process.pipe import Pipe, socket_pair
from tests.process_world import Heard, open_descriptors

ORDER = Run(Job("j", "r", "w", "s", "a", 1, "q", b"{}", 10.0), "worker", "/nowhere")


class Talk:
    """A dialogue, its peer, and how its pipe came to its end."""

    def __init__(self) -> None:
        ours, theirs = socket_pair()
        self.peer: BlockingPipe[ChildCommand] = BlockingPipe(theirs, ChildCommand)
        self.heard = Heard()
        self.over: list[Finished] = []
        self.end: asyncio.Future[WireError | None] = asyncio.get_running_loop().create_future()
        self.pipe: Pipe[ChildMessage] = Pipe(ours, ChildMessage, self._on_message, self.end.set_result)
        self.reserve = SpareDescriptor()
        self.dialogue = JobChannel(self.pipe, self.reserve, self.over.append)
        self._theirs = theirs

    def _on_message(self, message: ChildMessage) -> None:
        self.dialogue.receive(message)

    def run(self) -> asyncio.Task[JobReply]:
        return asyncio.get_running_loop().create_task(self.dialogue.run(ORDER, self.heard))

    def close(self) -> None:
        self.pipe.close()
        self._theirs.close()
        self.reserve.close()


@asynccontextmanager
async def talking() -> AsyncIterator[Talk]:
    """At the end of the block everything is closed, and no descriptor is left."""
    before = open_descriptors()
    talk = Talk()
    try:
        async with asyncio.timeout(10):
            yield talk
    finally:
        talk.close()
    assert open_descriptors() == before


async def test_an_order_is_sent_and_its_reply_returned() -> None:
    async with talking() as talk:
        running = talk.run()
        await asyncio.sleep(0)
        order = talk.peer.receive()
        event = Event("progress", b'{"done":1}')
        for message in (EventEmitted(event), Logged(20, "half way"), finished := Finished(b"MQ==", reusable=False)):
            talk.peer.send(message)

        told = await running

        assert order == ORDER
        assert (talk.heard.events, talk.heard.logged) == ([event], [(20, "half way")])
        assert told == JobReply(Succeeded(b"MQ=="), reusable=False)
        assert talk.over == [finished]


async def test_a_result_in_a_file_is_received_and_acknowledged() -> None:
    async with talking() as talk:
        running = talk.run()
        await asyncio.sleep(0)
        talk.peer.receive()
        with open(create_sealed("result", [b"MTIz"]), "rb") as file:
            talk.peer.send(Finished(attached=True), file.fileno())

        told = await running

        assert isinstance(told.outcome, Succeeded)
        assert isinstance(told.outcome.result, Blob)
        assert told.outcome.result.size == 4
        assert talk.peer.receive() == ResultReceived()
        told.outcome.result.close()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Ready(), "said Ready while busy"),
        (EventEmitted(Event("no type at all", b"{}")), "emitted what no handler can: type 'no type at all', 2 bytes"),
        (Finished(attached=True), "announced a descriptor and sent none"),
    ],
    ids=("out of turn", "no event", "no descriptor"),
)
async def test_an_invalid_message_raises_wire_error(said: ChildMessage, why: str) -> None:
    async with talking() as talk:
        running = talk.run()
        await asyncio.sleep(0)
        talk.peer.send(said)

        error = await talk.end

        assert str(error) == why
        running.cancel()
        await asyncio.wait([running])


async def test_a_bug_in_the_listener_raises_message_handling_error_with_its_cause() -> None:
    async with talking() as talk:
        bug = KeyError("ours")

        def raise_it(*_: object) -> None:
            raise bug

        talk.heard.on_log = raise_it  # type: ignore[method-assign]  # as a bug would
        running = talk.run()
        await asyncio.sleep(0)
        talk.peer.send(Logged(20, "x"))

        error = await talk.end

        assert isinstance(error, MessageHandlingError)
        assert error.__cause__ is bug
        running.cancel()
        await asyncio.wait([running])


async def test_abort_raises_in_run() -> None:
    async with talking() as talk:
        running = talk.run()
        await asyncio.sleep(0)

        talk.dialogue.abort(EOFError("it died"))
        talk.dialogue.abort(EOFError("too late"))

        with pytest.raises(EOFError, match="it died"):
            await running


async def test_fail_returns_a_supervisor_error_from_run() -> None:
    async with talking() as talk:
        running = talk.run()
        await asyncio.sleep(0)

        talk.dialogue.fail("the process is of no use")
        talk.dialogue.fail("too late")
        talk.dialogue.abort(EOFError("it died"))

        failed = Failed("SupervisorError", "the process is of no use")
        assert await running == JobReply(failed, reusable=False, has_workdir=True)


async def test_messages_after_a_cancelled_run_are_ignored() -> None:
    async with talking() as talk:
        running = talk.run()
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])

        talk.dialogue.receive(Logged(20, "x"))
        talk.dialogue.receive(Finished(failed=Failed("E", "m")))

        assert (talk.heard.logged, talk.over) == ([], [])
