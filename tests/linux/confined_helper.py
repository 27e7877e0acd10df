"""A forked process that is restricted as a child is."""

from __future__ import annotations

import os
from collections.abc import Callable

from supervisor.linux.confinement import Confinement


def run_confined(confinement: Confinement, act: Callable[[], object]) -> str:
    """Call `act` in a confined process; return its result as text, or the name of its exception."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()  # as a child does
            confinement.enter().enforce()
            answer = str(act())
        except BaseException as error:
            answer = type(error).__name__
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading) as pipe:
        return pipe.read()
