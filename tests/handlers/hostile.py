"""Handlers that harm whom they can: their process, their siblings, the supervisor.  Bounded, for the tests' machine."""

import _thread
import faulthandler
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NoReturn

from processes import pipe

from supervisor import Context, handler
from supervisor.ipc.messages import EventEmitted
from supervisor.ipc.wire import encode
from supervisor.job import Event

HELD: list[int] = []
"""Descriptors that nobody closes."""


def sleep_for_ever() -> NoReturn:
    while True:
        time.sleep(3600)


@handler("says-and-is-silent")
def says_and_is_silent(context: Context, said: str) -> None:
    context.emit("working", {"pids": [os.getpid()]})
    os.write(pipe(), bytes.fromhex(said))
    sleep_for_ever()


@handler("says-and-times-out", timeout="300ms", cancel_grace="200ms")
def says_and_times_out(said: str) -> None:
    os.write(pipe(), bytes.fromhex(said))
    sleep_for_ever()


@handler("stands-still", timeout="300ms", cancel_grace="200ms")
def stands_still() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@handler("floods-events")
def floods_events(context: Context, count: int) -> None:
    context.emit("flooding", {})
    thousand = encode(EventEmitted(Event("tick", b"{}"))) * 1000
    for _ in range(count // 1000):
        left = memoryview(thousand)
        while left:
            left = left[os.write(pipe(), left) :]


@handler("floods-output")
def floods_output(size: int) -> None:
    line = b"x" * 1023 + b"\n"
    for _ in range(size // (64 * 1024)):
        os.write(1, line * 64)
    os.write(1, b"the last line\n")


@handler("huge-result")
def huge_result(size: int) -> bytes:
    return bytes(size)


@handler("measures")
def measures(text: str) -> int:
    return len(text)


@handler("anything")
def anything(context: Context) -> int:
    print(repr(context.parameters)[:200])
    return len(context.parameters)


@handler("prints-raw")
def prints_raw(text: str) -> None:
    print(text)


@handler("overflows-the-stack")
def overflows_the_stack() -> None:
    faulthandler._stack_overflow()  # type: ignore[attr-defined]  # CPython's own way to test it


@handler("fork-bomb")
def fork_bomb(note: str, then: str) -> str:
    """A hundred processes, a third of them in sessions of their own and ten deep; each tells its pid in `note`."""
    for _ in range(10):
        if os.fork() == 0:
            breed(Path(note), 9)
    while len(Path(note).read_bytes().split()) < 100:
        time.sleep(0.01)
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def breed(note: Path, more: int) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if more % 3 == 0:
        os.setsid()
    with note.open("ab", buffering=0) as file:
        file.write(f"{os.getpid()}\n".encode())
    if more and os.fork() == 0:
        breed(note, more - 1)
    sleep_for_ever()


@handler("signals-its-parents-group")
def signals_its_parents_group(context: Context, number: int) -> str:
    context.emit("working", {"pids": [os.getpid()]})
    os.killpg(os.getpgid(os.getppid()), number)
    return "done"


class Broken:
    """What is no stream at all."""

    def write(self, _: str) -> NoReturn:
        raise RuntimeError("no stream")

    def flush(self) -> NoReturn:
        raise RuntimeError("no stream")


def start_threads() -> None:
    for _ in range(1000):
        threading.Thread(target=sleep_for_ever, daemon=True).start()


def use_up_descriptors() -> None:
    try:
        while True:
            HELD.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass


def move_to_a_deleted_folder() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)


def lower_limits() -> None:
    for limit, most in ((resource.RLIMIT_NOFILE, 32), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))


def change_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.setitimer(signal.ITIMER_REAL, 3600)


def use_one_processor() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def replace_stdout() -> None:
    sys.stdout = Broken()


def write_no_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


SPOILERS = {
    "files": write_no_files,
    "threads": start_threads,
    "descriptors": use_up_descriptors,
    "stdin": lambda: os.close(0),
    "folder": move_to_a_deleted_folder,
    "limits": lower_limits,
    "umask": lambda: os.umask(0o777),
    "signals": change_signals,
    "timer": lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 3600),
    "profiling-timer": lambda: signal.setitimer(signal.ITIMER_PROF, 3600),
    "dump-later": lambda: faulthandler.dump_traceback_later(0.3, exit=True),
    "processors": use_one_processor,
    "raw-thread": lambda: _thread.start_new_thread(sleep_for_ever, ()),
    "stdout-replaced": replace_stdout,
    "stdout-closed": lambda: sys.stdout.close(),
    "stdout-detached": lambda: sys.stdout.detach(),
}


@handler("spoils")
def spoils(what: str) -> str:
    SPOILERS[what]()
    return "done"


@handler("spoils-then-much")
def spoils_then_much(what: str) -> str:
    """Also leaves a process, as one that can be found by whoever has a descriptor to look with."""
    subprocess.Popen(["sleep", "3600"])
    SPOILERS[what]()
    return "x" * 5_000_000


@handler("condition")
def condition() -> dict[str, object]:
    """All that the job before may have spoiled."""
    umask = os.umask(0)
    os.umask(umask)
    print("can still print")
    numbers = sorted(signal.valid_signals() - {signal.SIGTERM})
    with tempfile.TemporaryFile() as file:
        file.write(b"can still write")
    return {
        "umask": umask,
        "folder": os.getcwd(),
        "limits": [resource.getrlimit(limit) for limit in range(resource.RLIMIT_RTTIME)],
        "signals": [str(signal.getsignal(number)) for number in numbers],
        "cancellable": callable(signal.getsignal(signal.SIGTERM)),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "timers": [signal.getitimer(timer)[0] > 0 for timer in (0, 1, 2)],
        "processors": sorted(os.sched_getaffinity(0)),
        "stdin": str(Path("/proc/self/fd/0").readlink()),
        "stdout": type(sys.stdout).__name__,
    }


@handler("die-slowly")
def die_slowly(context: Context, seconds: float) -> NoReturn:
    context.emit("working", {"pids": [os.getpid()]})
    time.sleep(seconds)
    os._exit(1)
