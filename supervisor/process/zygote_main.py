"""Inside the zygote: import the handlers once, then fork a child on request.  No thread, no event loop.

It forks twice: the process in between tells the child's pid to the parent and leaves, so that the child becomes the
parent's own (the parent is a subreaper) and the death of the zygote harms no job.
"""

from __future__ import annotations

import ctypes  # noqa: F401 - imported here so that children share it
import faulthandler
import gc
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec

from supervisor.process import child_main, guard
from supervisor.process.child_main import Birth
from supervisor.process.confinement import Confinement
from supervisor.process.importing import import_handlers
from supervisor.process.kernel import die_with_parent, enter_cgroup
from supervisor.process.landlock import Ruleset
from supervisor.process.mark import wear
from supervisor.process.messages import Fork, Forked, OrderToChild, OrderToZygote, Retire
from supervisor.process.pipe_main import BlockingPipe
from supervisor.process.wire import decoder_of


def main() -> None:
    """`zygote_main PIPE_DESCRIPTOR SUPERVISOR_PID MARK CONFINEMENT FOLDER…`: started by `zygote.Zygote`."""
    descriptor, supervisor, mark = map(int, sys.argv[1:4])
    pipe: BlockingPipe[OrderToZygote] = BlockingPipe(socket.socket(fileno=descriptor), OrderToZygote)
    wear(mark)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A line that is printed is to be seen at once, not when eight kilobytes are together; children inherit this.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a TextIOWrapper: we just started
    faulthandler.enable()
    # An import may loop for ever; but later the zygote outlives its parent, to sweep up after it.
    die_with_parent()
    if os.getppid() != supervisor:
        sys.exit("the supervisor is gone")
    ruleset = msgspec.json.decode(sys.argv[4], type=Confinement).enter()
    imported = import_handlers([Path(folder) for folder in sys.argv[5:]])
    die_with_parent(armed=False)
    _settle()
    try:
        pipe.send(imported)
        _serve(pipe, mark, supervisor, ruleset)
    except (BrokenPipeError, ConnectionResetError):
        guard.sweep(mark)
    except OSError as error:  # the parent starts another one
        sys.exit(f"no more children can be forked from here: {error.strerror}")


def _settle() -> None:
    """Make what is imported cheap to share: garbage out, and the collector never writes to what is left.

    What each child would have to make for itself is made before.
    """
    decoder_of(OrderToChild)
    gc.collect()
    gc.freeze()


def _serve(pipe: BlockingPipe[OrderToZygote], mark: int, supervisor: int, ruleset: Ruleset | None) -> None:
    while (order := pipe.receive()) is not None:
        match order:
            case Fork(cgroup):
                pipe_end, output, stack = (pipe.take_descriptor() for _ in range(3))
                _fork(pipe, Birth(pipe_end, output, stack, cgroup, supervisor, ruleset))
            case Retire():
                return
    guard.sweep(mark)


def _fork(pipe: BlockingPipe[OrderToZygote], birth: Birth) -> None:
    try:
        between = os.fork()
        if between == 0:
            _become_between(pipe, birth)
        os.waitpid(between, 0)
    except OSError as error:  # too many processes; the parent sees the end of the pipe and tries again later
        os.write(birth.output, f"fork: {error.strerror}\n".encode())
    finally:
        for descriptor in (birth.pipe, birth.output, birth.stack):
            os.close(descriptor)


def _become_between(pipe: BlockingPipe[OrderToZygote], birth: Birth) -> None:
    """The process between zygote and child: fork, tell the child's pid, leave.  Never returns in either process."""
    status = 70  # EX_SOFTWARE of sysexits.h: nothing but a failure to fork leaves it so
    try:
        if birth.cgroup:
            enter_cgroup(Path(birth.cgroup))  # so that whatever the child does, from its first step on, is in it
        between = os.getpid()  # asked for here: the child may look for its parent when that is gone already
        child = os.fork()
        if child == 0:
            os.close(pipe.fileno())
            child_main.main(birth, between=between)
        end: BlockingPipe[OrderToZygote] = BlockingPipe(socket.socket(fileno=birth.pipe), OrderToZygote)
        end.send(Forked(child))
        status = 0
    except OSError as error:
        os.write(birth.output, f"fork: {error.strerror}\n".encode())
    finally:
        # Neither process may go on in the zygote's code, nor run the zygote's exit handlers.
        os._exit(status)


if __name__ == "__main__":
    main()
