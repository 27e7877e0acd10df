"""The zygote: import the handlers once, then fork a child on request.  No thread, no event loop.

The zygote forks twice.  The intermediate process sends the pids of the children to the parent and exits.  The children
then belong to the parent, which is a subreaper, so that the death of the zygote harms no job.
Tested by tests/process/test_zygote.py.
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

from supervisor.child import child_main, descendants, orphan_sweep, random_generators
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
"""Children forked by one intermediate process; each request holds three descriptors until the fork."""

PROGRAM = "mobius-supervisor"
"""The program name that handlers see in `sys.argv`."""


def main() -> None:
    """`zygote_main PIPE SUPERVISOR_PID TAG OPEN_FILES CONFINEMENT FOLDER… -- SKIPPED_FILE…`: see `zygote.Zygote`."""
    descriptor, supervisor, tag, open_files = map(int, sys.argv[1:5])
    pipe: BlockingPipe[ZygoteCommand] = BlockingPipe(socket.socket(fileno=descriptor), ZygoteCommand)
    set_tag(tag)
    if open_files:
        descriptor_limit.lower(open_files)
    signal_defaults.restore()
    # Ctrl-C is ignored by a handler instead of SIG_IGN: exec resets handlers, so programs of a module get the default.
    signal.signal(signal.SIGINT, lambda *_: None)
    # Printed lines reach the log at once, not in blocks of 8 KiB; children inherit this.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a TextIOWrapper: no other code has run yet
    faulthandler.enable()
    # An import may never return.  After the imports the zygote outlives its parent, to kill what the jobs left behind.
    die_with_parent()
    if os.getppid() != supervisor:
        sys.exit("the supervisor is gone")
    restrictions = msgspec.json.decode(sys.argv[5], type=Confinement).enter()
    send = partial(_send, pipe, os.getpid())
    send(identity())
    end = sys.argv.index("--")
    folders = [Path(folder) for folder in sys.argv[6:end]]
    # Encoded as in messages: the locale of this process may decode an argument differently.
    skipped = [encodable(file, MAX_PATH) for file in sys.argv[end + 1 :]]
    _hide_arguments()
    library_log = LibraryLog.install()
    library_log.use(lambda level, logger, text: pipe.send(Logged(level, text, logger)))
    imported = import_handlers(folders, send, skipped)
    library_log.use(None)
    reseeds = random_generators.find(folders)
    die_with_parent(armed=False)
    signal_defaults.restore_after_imports()
    # Jobs run as the same user: they must not trace the zygote or write to its /proc files (PR_SET_DUMPABLE(2const)).
    set_dumpable(False)
    _freeze_memory()
    try:
        for part in imported.parts():
            send(part)
        new_request = partial(ForkRequest, restrictions=restrictions, library_log=library_log, reseeds=reseeds)
        _serve(pipe, tag, supervisor, new_request)
    except (BrokenPipeError, ConnectionResetError):
        orphan_sweep.kill_tagged(tag)
    except OSError as error:  # the parent starts another zygote
        sys.exit(f"no more children can be forked from here: {error.strerror}")


def _hide_arguments() -> None:
    """Remove the arguments from `sys.argv`: a handler's `argparse` would parse those of the zygote."""
    sys.argv = [PROGRAM]
    sys.orig_argv = [sys.executable, PROGRAM]


def _send(pipe: BlockingPipe[ZygoteCommand], pid: int, message: ZygoteMessage) -> None:
    """Send a message to the parent; exit if the module imported last has forked or closed the pipe."""
    if os.getpid() != pid:  # a module has forked, and this is the new process
        descendants.exit_forked_process(None)
    if not pipe.is_intact:
        _exit("it has closed descriptors that are not its own")
    pipe.send(message)


def _exit(why: str) -> NoReturn:
    # Not sys.exit: it flushes the standard streams, and a closed one changes the exit code to 120.
    with contextlib.suppress(OSError):
        os.write(2, f"{why}\n".encode())
    os._exit(1)


def _freeze_memory() -> None:
    """Let children share the memory of all imported objects: collect garbage, then freeze the rest.

    The garbage collector does not write to frozen objects.  The decoder is built here once instead of in each child.
    """
    decoder_of(ChildCommand)
    gc.collect()
    gc.freeze()


def _serve(
    pipe: BlockingPipe[ZygoteCommand], tag: int, supervisor: int, new_request: Callable[..., ForkRequest]
) -> None:
    requests: list[ForkRequest] = []
    while (order := pipe.receive()) is not None:
        if isinstance(order, Fork):
            pipe_end, output, stack = (pipe.take_descriptor() for _ in range(3))
            requests.append(new_request(pipe_end, output, stack, order.cgroup, supervisor))
            if len(requests) < MAX_FORKS_AT_ONCE and pipe.has_more:
                continue
        _fork(pipe, requests)
        requests = []
        if isinstance(order, Retire):
            return
    orphan_sweep.kill_tagged(tag)


def _fork(pipe: BlockingPipe[ZygoteCommand], requests: Sequence[ForkRequest]) -> None:
    """Fork one intermediate process for all these children: forking the zygote is the slowest step of a start."""
    try:
        if requests:
            intermediate_pid = os.fork()
            if intermediate_pid == 0:
                _become_intermediate(pipe, requests)
            with contextlib.suppress(ChildProcessError):  # a SIGCHLD handler of a module has reaped it
                os.waitpid(intermediate_pid, 0)
    except OSError as error:  # too many processes; the parent sees the end of the pipes and tries again later
        for request in requests:
            _report_fork_failure(request, error)
    finally:
        for request in requests:
            request.close()


def _become_intermediate(pipe: BlockingPipe[ZygoteCommand], requests: Sequence[ForkRequest]) -> NoReturn:
    """Fork the children, send the pid of each, and exit.  Never returns, neither here nor in a child."""
    try:
        intermediate_pid = os.getpid()  # here: in a child, getppid() may come after this process has exited
        for request in requests:
            try:
                if request.cgroup:
                    enter_cgroup(Path(request.cgroup))  # before the fork: the child is accounted from its first step
                child = os.fork()
                if child == 0:
                    os.close(pipe.fileno())
                    for other in requests:
                        if other is not request:
                            other.close()
                    child_main.main(request, intermediate_pid=intermediate_pid)
                os.write(request.pipe, encode(Forked(child)))
            except OSError as error:
                _report_fork_failure(request, error)
    finally:
        # Neither process may return into the zygote's code or run the zygote's exit handlers.
        os._exit(0)


def _report_fork_failure(request: ForkRequest, error: OSError) -> None:
    with contextlib.suppress(OSError):  # the parent has closed the other end
        os.write(request.output, f"fork: {error.strerror}\n".encode())


if __name__ == "__main__":
    main()
