"""The descriptors between the parent and a child that is to be born: opened all together, or none of them.

Runs in the parent.  Our ends go to `Child`'s parts, theirs travel to the zygote.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass

from supervisor.process.pipe import socket_pair
from supervisor.process.stack_file import StackFile


@dataclass(frozen=True, slots=True)
class ChildChannels:
    """Both ends of the message pipe and of the output pipe, and the stack file with a descriptor for the child.

    `reserved` is to be closed when the child's pidfd is opened: so that there is a descriptor left for that.
    """

    our_pipe: socket.socket
    their_pipe: socket.socket
    our_output: int
    their_output: int
    our_stack: StackFile
    their_stack: int
    reserved: int

    @classmethod
    def open(cls) -> ChildChannels:
        """Raises `OSError` when there are not enough descriptors; then nothing is left open."""
        with ExitStack() as opened:
            ours, theirs = socket_pair()
            opened.callback(ours.close)
            opened.callback(theirs.close)
            reading, writing = os.pipe2(os.O_CLOEXEC)
            opened.callback(os.close, reading)
            opened.callback(os.close, writing)
            stack = StackFile()
            opened.callback(stack.close)
            theirs_too = stack.descriptor()
            opened.callback(os.close, theirs_too)
            cord = cls(ours, theirs, reading, writing, stack, theirs_too, os.dup(reading))
            opened.pop_all()
        return cord
