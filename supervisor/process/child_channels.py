"""The descriptors between the parent and a new child: either all are opened or none.  Runs in the parent.

`Child` keeps the parent's ends; the child's ends are sent to the zygote.
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

    `reserved` is closed just before the child's pidfd is opened, so that a descriptor is free for it.
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
        """Open all descriptors; raise `OSError` and leave none open when there are not enough."""
        with ExitStack() as opened:
            ours, theirs = socket_pair()
            opened.callback(ours.close)
            opened.callback(theirs.close)
            reading, writing = os.pipe2(os.O_CLOEXEC)
            opened.callback(os.close, reading)
            opened.callback(os.close, writing)
            stack = StackFile()
            opened.callback(stack.close)
            their_stack = stack.descriptor()
            opened.callback(os.close, their_stack)
            channels = cls(ours, theirs, reading, writing, stack, their_stack, os.dup(reading))
            opened.pop_all()
        return channels
