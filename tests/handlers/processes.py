"""Handlers that look at, or break, what their process is made of."""

import ctypes
import multiprocessing
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from multiprocessing import shared_memory
from typing import NoReturn

from supervisor import Context, handler
from supervisor.ipc.messages import Finished
from supervisor.ipc.wire import encode

PR_GET_PDEATHSIG = 2
PR_GET_CHILD_SUBREAPER = 37


@handler("kinship")
def kinship() -> dict[str, int]:
    """What the kernel knows of this process's relations."""
    libc = ctypes.CDLL(None)
    told = {}
    for name, option in (("pdeathsig", PR_GET_PDEATHSIG), ("subreaper", PR_GET_CHILD_SUBREAPER)):
        value = ctypes.c_int()
        libc.prctl(option, ctypes.byref(value), 0, 0, 0)
        told[name] = value.value
    return {**told, "pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "group": os.getpgid(0)}


@handler("inherited")
def inherited() -> list[str]:
    """The descriptors that a program sees which is started without further ado."""
    listing = subprocess.run(["ls", "/proc/self/fd"], check=True, capture_output=True, close_fds=False, text=True)
    return sorted(set(listing.stdout.split()) - {"3"})  # 3 is the listing's own


@handler("has-loaded")
def has_loaded(module: str) -> bool:
    return module in sys.modules


def pipe() -> int:
    """The descriptor of the pipe to the supervisor."""
    return next(number for number in range(3, 64) if is_socket(number))


def is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


@handler("forges")
def forges(frame: str) -> str:
    os.write(pipe(), bytes.fromhex(frame))
    return "real"


@handler("hands-over-what-it-keeps")
def hands_over_what_it_keeps(context: Context, where: str) -> None:
    """A result that it could cut afterwards: in a file in memory, on the disk, or no file at all."""
    if where == "memory":
        kept = os.memfd_create("result")
    elif where == "disk":
        kept = os.open(context.workdir / "result", os.O_RDWR | os.O_CREAT)
    else:
        kept, _ = os.pipe()
    way = socket.socket(fileno=os.dup(pipe()))
    socket.send_fds(way, [encode(Finished(attached=True))], [kept])
    time.sleep(3600)


@handler("closes-the-pipe-and-goes-on")
def closes_the_pipe_and_goes_on() -> None:
    os.close(pipe())
    while True:
        time.sleep(3600)


@handler("stops-itself")
def stops_itself(context: Context) -> None:
    context.emit("working", {"pids": [os.getpid()]})
    os.kill(os.getpid(), signal.SIGSTOP)


@handler("moves-away")
def moves_away() -> None:
    os.chdir("/")
    os.environ["MOBIUS_JOB_ID"] = "another"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@handler("where")
def where() -> list[str]:
    return [os.getcwd(), os.environ["MOBIUS_JOB_ID"], str(signal.getsignal(signal.SIGTERM) == signal.SIG_IGN)]


@handler("dies-and-leaves-a-printer")
def dies_and_leaves_a_printer() -> None:
    subprocess.Popen([sys.executable, "-c", "while True: print('x' * 1000)"], start_new_session=True)
    os._exit(3)


@handler("prints-without-end-beside")
def prints_without_end_beside() -> str:
    import threading

    def print_without_end() -> None:
        while True:
            os.write(1, b"beside\n" * 1000)

    threading.Thread(target=print_without_end, daemon=True).start()
    return "done"


@handler("control-group")
def control_group() -> dict[str, str]:
    """The control groups of this process and of one that it starts."""
    started = subprocess.run(["cat", "/proc/self/cgroup"], check=True, capture_output=True, text=True)
    with open("/proc/self/cgroup") as ours:
        return {"own": ours.read().partition("0::")[2].strip(), "started": started.stdout.partition("0::")[2].strip()}


@handler("forks-and-goes-on")
def forks_and_goes_on(how: str) -> str:
    """The process that it forks comes back from the handler too, in one way or another, and before it does."""
    forked = os.fork()
    if forked == 0:
        if how == "raises":
            raise ValueError("in the other process")
        if how == "exits":
            sys.exit(3)
        return "the other one"
    _, status = os.waitpid(forked, 0)
    time.sleep(0.2)
    return f"the real one, and the other has ended with {os.waitstatus_to_exitcode(status)}"


@handler("forks-in-a-coroutine")
async def forks_in_a_coroutine() -> str:
    """The process that it forks comes back from the handler, whose loop goes on here."""
    import asyncio

    forked = os.fork()
    if forked == 0:
        return "the other one"
    os.waitpid(forked, 0)
    return await asyncio.to_thread(lambda: "a thread has woken it up")


@handler("ends-a-process-in-its-cleanup", cancel_grace="10s")
def ends_a_process_in_its_cleanup(context: Context) -> None:
    try:
        context.emit("working", {"pids": [os.getpid()]})
        time.sleep(3600)
    finally:
        forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,))
        forked.start()
        forked.terminate()
        forked.join()
        print("it ended with", forked.exitcode)


@handler("forgets-shared-memory")
def forgets_shared_memory() -> str:
    return shared_memory.SharedMemory(create=True, size=4096).name


@handler("tidies-up-shared-memory")
def tidies_up_shared_memory() -> str:
    memory = shared_memory.SharedMemory(create=True, size=4096)
    memory.close()
    memory.unlink()
    return memory.name


@handler("waits-in-c")
def waits_in_c(context: Context, seconds: int) -> str:
    """As code in C that takes any signal for the end of its wait."""
    context.emit("working", {"pids": [os.getpid()]})
    ctypes.CDLL(None).sleep(seconds)
    return "waited to the end"


BALLAST = []
"""What makes a fork take long."""


@handler("forks-without-end")
def forks_without_end(context: Context) -> NoReturn:
    BALLAST.append(os.urandom(1) * (64 * 2**20))
    context.emit("working", {"pids": [os.getpid()]})
    while True:
        forked = os.fork()
        if forked == 0:
            os._exit(0)
        os.waitpid(forked, 0)
