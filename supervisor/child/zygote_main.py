"""Inside the zygote: import the handlers once, then fork a child on request.  No thread, no event loop.

It forks twice: the process in between tells the pids of the children to the parent and leaves, so that they become the
parent's own (the parent is a subreaper) and the death of the zygote harms no job.
"""

from __future__ import annotations

import contextlib
import ctypes  # noqa: F401 - imported here so that children share it
import faulthandler
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import msgspec

from supervisor.child import child_main, descendants, generators
from supervisor.child import orphan_sweep as guard
from supervisor.child.child_main import ForkRequest
from supervisor.child.handler_files import MAX_PATH
from supervisor.child.handler_import import import_handlers
from supervisor.handler_api.library_log import LibraryLog
from supervisor.ipc.blocking_pipe import BlockingPipe
from supervisor.ipc.messages import ChildCommand, Fork, Forked, Logged, Retire, ZygoteCommand, ZygoteMessage
from supervisor.ipc.program_identity import identity
from supervisor.ipc.wire import decoder_of, encode
from supervisor.linux import descriptor_limit, signal_defaults
from supervisor.linux.confinement import Confinement
from supervisor.linux.process_tag import set_tag
from supervisor.linux.syscalls import die_with_parent, enter_cgroup, set_dumpable
from supervisor.text.printable import encodable

MAX_FORKS_AT_ONCE = 16
"""Children that are born together: each holds three descriptors until then."""

PROGRAM = "mobius-supervisor"
"""What handlers see as the name of their program."""


def main() -> None:
    """`zygote_main PIPE SUPERVISOR_PID MARK OPEN_FILES CONFINEMENT FOLDER… -- SKIPPED_FILE…`: see `zygote.Zygote`."""
    descriptor, supervisor, mark, open_files = map(int, sys.argv[1:5])
    pipe: BlockingPipe[ZygoteCommand] = BlockingPipe(socket.socket(fileno=descriptor), ZygoteCommand)
    set_tag(mark)
    if open_files:
        descriptor_limit.lower(open_files)
    signal_defaults.restore()
    # It is deaf, but by a handler: programs that a module starts begin with the default again, as after each exec.
    signal.signal(signal.SIGINT, lambda *_: None)
    # A line that is printed is to be seen at once, not when eight kilobytes are together; children inherit this.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a TextIOWrapper: we just started
    faulthandler.enable()
    # An import may loop for ever; but later the zygote outlives its parent, to sweep up after it.
    die_with_parent()
    if os.getppid() != supervisor:
        sys.exit("the supervisor is gone")
    restrictions = msgspec.json.decode(sys.argv[5], type=Confinement).enter()
    tell = partial(_send, pipe, os.getpid())
    tell(identity())
    end = sys.argv.index("--")
    folders = [Path(folder) for folder in sys.argv[6:end]]
    # As messages carry the paths: the locale of this process may decode an argument otherwise.
    skipped = [encodable(file, MAX_PATH) for file in sys.argv[end + 1 :]]
    _hide_arguments()
    library_log = LibraryLog.install()
    library_log.use(lambda level, logger, text: pipe.send(Logged(level, text, logger)))
    imported = import_handlers(folders, tell, skipped)
    library_log.use(None)
    found = generators.find(folders)
    die_with_parent(armed=False)
    signal_defaults.restore_after_imports()
    # Jobs run as this user: they are not to trace it, nor to write to its files in /proc (PR_SET_DUMPABLE(2const)).
    set_dumpable(False)
    _settle()
    try:
        for part in imported.parts():
            tell(part)
        new_birth = partial(ForkRequest, restrictions=restrictions, library_log=library_log, generators=found)
        _serve(pipe, mark, supervisor, new_birth)
    except (BrokenPipeError, ConnectionResetError):
        guard.kill_tagged(mark)
    except OSError as error:  # the parent starts another one
        sys.exit(f"no more children can be forked from here: {error.strerror}")


def _hide_arguments() -> None:
    """Leave a handler a command line without arguments: its `argparse` would take ours for its own."""
    sys.argv = [PROGRAM]
    sys.orig_argv = [sys.executable, PROGRAM]


def _send(pipe: BlockingPipe[ZygoteCommand], pid: int, message: ZygoteMessage) -> None:
    """Say it to the parent; leave when the module that it was told of last has made that impossible."""
    if os.getpid() != pid:  # a module has forked, and this is the other process
        descendants.leave(None)
    if not pipe.is_intact:
        _leave("it has closed descriptors that are not its own")
    pipe.send(message)


def _leave(why: str) -> NoReturn:
    # Not sys.exit: it flushes the standard streams, and a closed one changes the exit code to 120.
    with contextlib.suppress(OSError):
        os.write(2, f"{why}\n".encode())
    os._exit(1)


def _settle() -> None:
    """Make what is imported cheap to share: garbage out, and the collector never writes to what is left.

    What each child would have to make for itself is made before.
    """
    decoder_of(ChildCommand)
    gc.collect()
    gc.freeze()


def _serve(
    pipe: BlockingPipe[ZygoteCommand], mark: int, supervisor: int, new_birth: Callable[..., ForkRequest]
) -> None:
    births: list[ForkRequest] = []
    while (order := pipe.receive()) is not None:
        if isinstance(order, Fork):
            pipe_end, output, stack = (pipe.take_descriptor() for _ in range(3))
            births.append(new_birth(pipe_end, output, stack, order.cgroup, supervisor))
            if len(births) < MAX_FORKS_AT_ONCE and pipe.has_more:
                continue
        _fork(pipe, births)
        births = []
        if isinstance(order, Retire):
            return
    guard.kill_tagged(mark)


def _fork(pipe: BlockingPipe[ZygoteCommand], births: Sequence[ForkRequest]) -> None:
    """Have all these children forked by one process in between: a fork takes longer than all else of a birth."""
    try:
        if births:
            between = os.fork()
            if between == 0:
                _become_intermediate(pipe, births)
            with contextlib.suppress(ChildProcessError):  # a handler for SIGCHLD, which a module set, has reaped it
                os.waitpid(between, 0)
    except OSError as error:  # too many processes; the parent sees the end of the pipes and tries again later
        for birth in births:
            _report_fork_failure(birth, error)
    finally:
        for birth in births:
            birth.close()


def _become_intermediate(pipe: BlockingPipe[ZygoteCommand], births: Sequence[ForkRequest]) -> NoReturn:
    """The process between zygote and children: fork, tell each child's pid, leave.  Never returns in any of them."""
    try:
        between = os.getpid()  # asked for here: a child may look for its parent when that is gone already
        for birth in births:
            try:
                if birth.cgroup:
                    enter_cgroup(
                        Path(birth.cgroup)
                    )  # so that all that the child does, from its first step on, is in it
                child = os.fork()
                if child == 0:
                    os.close(pipe.fileno())
                    for other in births:
                        if other is not birth:
                            other.close()
                    child_main.main(birth, intermediate_pid=between)
                os.write(birth.pipe, encode(Forked(child)))
            except OSError as error:
                _report_fork_failure(birth, error)
    finally:
        # No process may go on in the zygote's code, nor run the zygote's exit handlers.
        os._exit(0)


def _report_fork_failure(birth: ForkRequest, error: OSError) -> None:
    with contextlib.suppress(OSError):  # whoever wanted it has gone
        os.write(birth.output, f"fork: {error.strerror}\n".encode())


if __name__ == "__main__":
    main()
