"""The messages between parent, zygote and child.  Pure data; `wire` turns it into bytes.

parent → zygote   `Fork` (with three descriptors: the child's ends of pipe and output, and its stack file), `Retire`
zygote → parent   `Hello`; `Importing`, for each module before it is imported, and `Logged`; then `Imported`, in parts,
                  and nothing after it
parent → child    `Run`; after a result sent as a descriptor `ResultReceived`
                  or `ResendResult`; stopping is a signal, so that the
                  child needs no reader thread
child  → parent   `Forked`, `Ready`, then per job: any number of `EventEmitted` and `Logged`, one `Finished`
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from supervisor.job import Event, Failed, Job
from supervisor.limits import Limits
from supervisor.text.printable import shortened

MAX_MESSAGE = 1000
"""Characters of a problem: it is one sentence, with at most a few paths in it."""


PART = 64
"""Handlers, and problems, in one message: each has less than 10 kB of text, and a frame holds 2 MiB."""


class HandlerInfo(msgspec.Struct, frozen=True):
    """What the parent knows of a handler: its name, its place, its limits."""

    action: str
    module: str
    file: str
    line: int
    limits: Limits = Limits()
    summary: str = ""


class Problem(msgspec.Struct, frozen=True):
    """Why a handler module, or one of its handlers, is not served; `message` is one sentence.

    `line` is 0 where a whole folder cannot be looked into, which the message then names.
    """

    module: str
    file: str
    line: int
    message: str

    @property
    def located_message(self) -> str:
        """`file:line: message`, as compilers write it so that editors find the place."""
        return f"{self.file}:{self.line}: {self.message}" if self.line else self.message


class Fork(msgspec.Struct, tag=True, frozen=True):
    """Fork a child; its ends of the message pipe and of the output pipe, and its stack file, travel along.

    `cgroup` is the folder of the control group to start the child in, if any.
    """

    cgroup: str = ""


class Retire(msgspec.Struct, tag=True, frozen=True):
    """No more forks: leave."""


class Hello(msgspec.Struct, tag=True, frozen=True):
    """The first message of a zygote: which program it is (see `process.program_identity`).

    Later versions must keep this message as it is: a parent of any version reads it.
    """

    version: str
    shapes: int
    """Checksum of all messages."""


class Importing(msgspec.Struct, tag=True, frozen=True):
    """The zygote imports this module next; if it then exits or hangs, this module is the cause."""

    module: str
    file: str

    def __str__(self) -> str:
        return f"module {self.module!r} ({self.file})"

    def problem(self, message: str, file: str = "", line: int = 1) -> Problem:
        """Return a problem of this module, at its first line unless another place is known."""
        return Problem(self.module, file or self.file, line, shortened(message, MAX_MESSAGE))


class Imported(msgspec.Struct, tag=True, frozen=True):
    """All handler modules were tried: what they offer, what went wrong, and what will (one sentence each).

    When it does not fit into one frame it comes in parts, of which all but the last one are `partial`.
    """

    handlers: tuple[HandlerInfo, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...] = ()
    partial: bool = False

    def parts(self) -> Iterator[Imported]:
        """Cut it into parts that fit into a frame each."""
        longest = max(len(self.handlers), len(self.problems), len(self.warnings))
        for start in range(0, longest, PART) or [0]:
            here = slice(start, start + PART)
            is_last = start + PART >= longest
            yield Imported(self.handlers[here], self.problems[here], self.warnings[here], partial=not is_last)

    def joined(self, later: Imported) -> Imported:
        """Put a part behind this one."""
        return Imported(
            self.handlers + later.handlers,
            self.problems + later.problems,
            self.warnings + later.warnings,
            later.partial,
        )


class Run(msgspec.Struct, tag=True, frozen=True):
    """Run this job, this nice and with so many threads in numeric libraries.

    When its parameters are a `Blob` the descriptor travels beside the message.
    """

    job: Job
    worker_id: str
    workdir: str
    nice: int = 0
    threads: int = 1


class ResendResult(msgspec.Struct, tag=True, frozen=True):
    """The descriptor of the result has not arrived: send it once more."""


class ResultReceived(msgspec.Struct, tag=True, frozen=True):
    """The parent has received the descriptor of the result, or has given up on it."""


class Forked(msgspec.Struct, tag=True, frozen=True):
    """The child has this pid.  Sent by the intermediate process between zygote and child, before it exits."""

    pid: int


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The child waits for a job."""


class EventEmitted(msgspec.Struct, tag=True, frozen=True):
    """The handler emitted an event."""

    event: Event


class Logged(msgspec.Struct, tag=True, frozen=True):
    """The handler, or a library, logged a line; `level` is a number of `logging`.

    `logger` is "handler" for `context.log`.  The zygote sends it as well, while modules are imported.
    """

    level: int
    text: str
    logger: str = "handler"


class Finished(msgspec.Struct, tag=True, frozen=True):
    """The job has ended: with `failed`, or else it succeeded with `result` (as in `job.Succeeded`).

    `attached`: the result is sent as a descriptor instead.  `reusable` is false when the child must take no further
    job, because the handler left processes behind or closed what it must not.  `cpu` is the processor time of the child
    so far, in seconds.  `has_workdir`: the job has made its folder.  `has_output`: there may be something in the output
    pipe that was printed before this message was sent.
    """

    result: bytes | None = None
    failed: Failed | None = None
    attached: bool = False
    reusable: bool = True
    cpu: float = 0.0
    has_workdir: bool = False
    has_output: bool = True


ZygoteMessage = Hello | Importing | Imported | Logged
ChildMessage = Forked | Ready | EventEmitted | Logged | Finished
ZygoteCommand = Fork | Retire
ChildCommand = Run | ResendResult | ResultReceived
