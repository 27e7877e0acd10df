"""The parent's handle on a zygote: start it, ask it for forks, retire it.

A zygote is a fresh interpreter that imports the handlers once and forks children; it never holds the credential, a
thread or a loop.  Its death harms no job: children are the parent's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import structlog

from supervisor.child.thread_limits import VARIABLES
from supervisor.ipc.messages import (
    Fork,
    HandlerInfo,
    Hello,
    Imported,
    Importing,
    Logged,
    Problem,
    Retire,
    ZygoteMessage,
)
from supervisor.ipc.program_identity import difference
from supervisor.ipc.wire import WireError
from supervisor.linux.confinement import UNCONFINED, Confinement
from supervisor.linux.exit_status import signal_name
from supervisor.process.environment import child_environment
from supervisor.process.fatal_error import FatalErrorParser
from supervisor.process.output import Output
from supervisor.process.pipe import Pipe, socket_pair
from supervisor.process.reaper import Reaper, ended
from supervisor.text.log_level import known_level

log = structlog.get_logger("zygote")

_SIGNALS_OF_OTHERS = frozenset({signal.SIGKILL, signal.SIGTERM})
"""What ends the process is probably not the module then, but the kernel out of memory or an operator."""
EXIT_AFTER_CLOSE_TIMEOUT = 2.0
"""Seconds that a zygote may live on after it closed its pipe."""


class StartFailed(Exception):
    """A zygote or a child did not come up.  Caught by the slot, which backs off, and by the service at its start."""


class ImportEnded(StartFailed):
    """A module has ended, or held up, the process that imported it.  Caught by `start_zygote`, which leaves it out."""

    def __init__(self, message: str, file: str, problem: Problem, *, is_slow: bool = False) -> None:
        super().__init__(message)
        self.file = file
        self.problem = problem
        self.is_slow = is_slow


@dataclass(frozen=True, slots=True)
class ZygoteConfig:
    """What a zygote is started with: where the handlers are, and what is kept from them.

    The files in `refused` are not imported, each for a reason: they have ended such a process before.
    """

    folders: Sequence[Path]
    environment: Mapping[str, str]
    import_timeout: float = 60.0
    confinement: Confinement = UNCONFINED
    refused: Mapping[str, Problem] = field(default_factory=dict)
    open_files: int = 0
    """The soft limit of descriptors; 0 for that of this process."""
    working_directory: Path = Path()
    """Directory of the zygote, and of its children between jobs; resolved at each start because it may be a link."""


class Zygote:
    """One process from its start to its exit."""

    def __init__(self, config: ZygoteConfig, reaper: Reaper) -> None:
        self.actions: tuple[str, ...] = ()
        """Names of the actions that have a handler."""
        self.concurrency_limits: dict[str, int] = {}
        """Maximum of concurrent jobs for each limited action."""
        self._handlers: dict[str, HandlerInfo] = {}
        self._reaper = reaper
        self.is_gone = False
        """True if the pipe has ended: the zygote forks no more children and soon exits."""
        self._hello: Hello | None = None
        self._importing: Importing | None = None
        """The module whose import began last."""
        self._imports = Imported((), tuple(config.refused.values()))
        """Imports reported so far, and the modules that the zygote was started without."""
        self._imported: asyncio.Future[Imported] = asyncio.get_running_loop().create_future()
        try:
            with contextlib.ExitStack() as opened, contextlib.ExitStack() as given:
                ours, theirs = socket_pair()
                opened.callback(ours.close)
                given.callback(theirs.close)
                reading, writing = os.pipe2(os.O_CLOEXEC)
                opened.callback(os.close, reading)
                given.callback(os.close, writing)
                self._process = _spawn(config, reaper.tag, theirs, writing)
                opened.pop_all()
        except OSError as error:
            program = (
                f"{error.filename}: " if error.filename else ""
            )  # the kernel names the program if that cannot be executed
            raise StartFailed(
                f"the process that imports the handlers could not be started: {program}{error.strerror}"
            ) from error
        self.pid = self._process.pid
        self._crash = FatalErrorParser()
        self._output = Output(reading, self._on_line)
        # Do not retry a fork that the kernel refuses, others are queued behind it: the child factory tries again.
        self._pipe: Pipe[ZygoteMessage] = Pipe(ours, ZygoteMessage, self._on_message, self._on_end, gives_up=True)
        reaper.register(self)

    @classmethod
    async def start(cls, config: ZygoteConfig, reaper: Reaper) -> Zygote:
        """Start a zygote and wait until it has imported the handlers; raise `StartFailed` when it does not."""
        zygote = cls(config, reaper)
        try:
            async with asyncio.timeout(config.import_timeout):
                await zygote._imported
        except EOFError:
            raise await zygote._exit_description() from None
        except TimeoutError:
            await zygote.kill()
            raise zygote._overdue(config.import_timeout) from None
        except BaseException:
            await zygote.kill()
            raise
        return zygote

    def __repr__(self) -> str:
        return f"<Zygote pid {self.pid}>"

    @property
    def imported(self) -> Imported:
        """The handlers and the problems it found."""
        return self._imported.result()

    def handler_of(self, action: str) -> HandlerInfo | None:
        """Return the handler of `action`; None when there is none."""
        return self._handlers.get(action)

    def poll_pid(self) -> None:
        """Do nothing: the pid is known from the start."""

    def fork(self, pipe_end: socket.socket, output_end: int, stack_file: int, cgroup: str = "") -> None:
        """Fork a child that gets these three descriptors; the parent's copies are closed once they are sent.

        They are also closed when the zygote is gone or the kernel refuses to send them: then the other ends of pipe and
        output reach their end of file.
        """
        self._pipe.send(Fork(cgroup), pipe_end.detach(), output_end, stack_file)

    async def exited(self) -> int:
        """Wait for the zygote and reap it; return its exit code, negative for a signal."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # reaped elsewhere
                await ended(self.pid)
        # Unconditional and idempotent: `Popen.kill` may have reaped the zygote meanwhile.
        self._record_exit()
        return self._process.wait()

    def terminate(self) -> None:
        """Send SIGKILL without waiting; await `exited` for the end."""
        if self._process.returncode is None:
            self._process.kill()

    async def retire(self) -> None:
        """Ask the zygote to exit and wait for it; its children keep running."""
        self._pipe.send(Retire())
        await self.exited()

    async def kill(self) -> None:
        """Kill the zygote and wait for it; its children keep running."""
        self._process.kill()
        try:
            async with asyncio.timeout(self._reaper.kill_timeout):
                await self.exited()
        except TimeoutError:
            log.error("the zygote cannot be killed", pid=self.pid)
            self._close_channels()

    def _overdue(self, import_timeout: float) -> StartFailed:
        message = f"importing the handlers took longer than {import_timeout:g} s" + self._at_module("; it had come to")
        if self._importing is None:
            return StartFailed(message)
        why = f"its import took longer than {import_timeout:g} s"
        return ImportEnded(message, self._importing.file, self._importing.problem(why), is_slow=True)

    async def _exit_description(self) -> StartFailed:
        """Describe the exit of a zygote that has not reported its imports."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_AFTER_CLOSE_TIMEOUT):
                await self.exited()
        await self.kill()
        code = self._process.poll()
        if code is None:
            how = "cannot be killed"
        else:
            how = f"was killed by {signal_name(-code)}" if code < 0 else f"exited with code {code}"
        if self._hello is None and (why := difference(None)) is not None:
            return StartFailed(why)
        crash = self._crash.sentence if code is not None and code < 0 else ""
        last = crash or "; ".join(self._output.last_lines(3)) or "no output"
        message = f"the process that imports the handlers {how}{self._at_module(' while it imported')}: {last}"
        if self._importing is None or code is None or -code in _SIGNALS_OF_OTHERS:
            return StartFailed(message)
        file, line = self._crash.place_in(Path(self._importing.file).parent)
        problem = self._importing.problem(f"its import {how}: {last}", file, line)
        return ImportEnded(message, self._importing.file, problem)

    def _at_module(self, words: str) -> str:
        """Return `words` and the module being imported; "" before the first one."""
        return "" if self._importing is None else f"{words} {self._importing}"

    def _record_exit(self) -> None:
        self._process.wait()
        self._pipe.drain()
        self._output.drain()
        self._close_channels()

    def _close_channels(self) -> None:
        self.is_gone = True  # a process just forked may hold the other end of the pipe, so there is no end of file
        self._pipe.close()
        self._output.close()
        self._reaper.unregister(self)

    def _on_line(self, line: str) -> None:
        self._crash.feed(line)
        log.info("printed", line=line, pid=self.pid)

    def _on_message(self, message: ZygoteMessage) -> None:
        if isinstance(message, Logged):
            _log_record(message, self.pid)
            return
        if self._imported.cancelled() or self._is_refused:
            return  # `start` was cancelled or has failed; the zygote may still send
        if self._imported.done():
            raise WireError(f"said {type(message).__name__} out of turn, after what it imported")
        if self._hello is None:
            self._on_hello(message)
        elif isinstance(message, Importing):
            self._importing = message
        elif isinstance(message, Imported):
            self._imports = self._imports.joined(message)
            if not message.partial:
                self._on_imported(self._imports)
        else:
            raise WireError("introduced itself twice")

    @property
    def _is_refused(self) -> bool:
        """True if the zygote runs another version of the program and is about to be killed."""
        return self._imported.done() and self._imported.exception() is not None

    def _on_hello(self, message: ZygoteMessage) -> None:
        """Check that the zygote runs the same version of the program as the parent."""
        if not isinstance(message, Hello):
            raise WireError(f"said {type(message).__name__} before it introduced itself")
        self._hello = message
        if (why := difference(message)) is not None:
            self._imported.set_exception(StartFailed(why))

    def _on_imported(self, message: Imported) -> None:
        self._imported.set_result(message)
        self._handlers = {handler.action: handler for handler in message.handlers}
        self.actions = tuple(self._handlers)
        limits = {action: handler.limits.max_concurrent for action, handler in self._handlers.items()}
        self.concurrency_limits = {action: most for action, most in limits.items() if most is not None}

    def _on_end(self, error: WireError | None) -> None:
        self.is_gone = True
        if error is not None:
            log.warning("the zygote is ended: it %s", error, pid=self.pid)
            self._process.kill()
        # Usually the exit follows at once; but a thread of an imported module may have closed the descriptor.
        asyncio.get_running_loop().call_later(EXIT_AFTER_CLOSE_TIMEOUT, self.terminate)
        if not self._imported.done():
            self._imported.set_exception(EOFError())


async def start_zygote(config: ZygoteConfig, reaper: Reaper) -> Zygote:
    """Start a zygote; start again without each module whose import ends the process.

    At most one module whose import times out is left out: each costs the whole timeout.
    """
    is_late = False
    while True:
        try:
            return await Zygote.start(config, reaper)
        except ImportEnded as ended:
            if ended.file in config.refused or (ended.is_slow and is_late):
                raise
            is_late = is_late or ended.is_slow
            config = replace(config, refused={**config.refused, ended.file: ended.problem})


def _log_record(record: Logged, pid: int) -> None:
    """Log a record that a module logged during its import."""
    log.log(known_level(record.level), record.text, logger=record.logger, pid=pid)


def import_once(folders: Sequence[Path], import_timeout: float, passed: Sequence[str]) -> Imported:
    """Import the handlers in a zygote and return the result; raise `StartFailed` when the zygote does not start.

    Kills the processes that the modules have started.
    """
    config = ZygoteConfig(folders, child_environment(os.environ, passed), import_timeout)

    async def start_and_retire() -> Imported:
        reaper = Reaper()
        try:
            zygote = await start_zygote(config, reaper)
            await zygote.retire()
            return zygote.imported
        finally:
            await reaper.kill_orphans()

    return asyncio.run(start_and_retire())


def _spawn(config: ZygoteConfig, tag: int, theirs: socket.socket, output: int) -> subprocess.Popen[bytes]:
    # Not the event loop's subprocess: uvloop forks on the loop's thread and runs Python at-fork hooks there.
    # -P keeps the current directory off sys.path, where a file named like a module would be imported instead of it.
    program = [sys.executable, "-P", "-m", "supervisor.child.zygote_main"]
    confinement = msgspec.json.encode(config.confinement).decode()
    numbers = (theirs.fileno(), os.getpid(), tag, config.open_files)
    folders = map(str, config.folders)
    return subprocess.Popen(
        [*program, *map(str, numbers), confinement, *folders, "--", *config.refused],
        cwd=config.working_directory,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # One thread: with more of them, some library's lock could be held at the moment of a fork.
        env={**dict.fromkeys(VARIABLES, "1"), **config.environment},
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
