"""A handler that tries every way to the API key, and one that tries to get out of hand.

What the first looks for it is told as a digest: otherwise it would find it in its own memory.
"""

import contextlib
import ctypes
import hashlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from supervisor import handler

PTRACE_ATTACH = 16
LONGEST_PIECE = 1 << 24

libc = ctypes.CDLL(None, use_errno=True)


@handler("spy")
def spy(digest: str, key_file: str) -> dict[str, str]:
    """What came of each way: "found", "not there", or the name of the error."""
    parent = os.getppid()
    ways: dict[str, Callable[[], Iterator[bytes]]] = {
        "own environment": lambda: content("/proc/self/environ"),
        "own memory": lambda: memory(os.getpid()),
        "own descriptors": lambda: descriptors(os.getpid()),
        "command line of the parent": lambda: content(f"/proc/{parent}/cmdline"),
        "environment of the parent": lambda: content(f"/proc/{parent}/environ"),
        "memory of the parent": lambda: memory(parent),
        "descriptors of the parent": lambda: descriptors(parent),
        "tracing the parent": lambda: trace(parent),
        "the credential": lambda: content(key_file),
        "the credential by another way": lambda: content(f"/proc/self/root{key_file}"),
        "the credential by the parent": lambda: content(f"/proc/{parent}/root{key_file}"),
        "a link to the credential": lambda: link(key_file),
        "the administrator's file": lambda: content("/etc/mobius-supervisor/api-key"),
    }
    return {name: tried(way, digest) for name, way in ways.items()}


@handler("get-out-of-hand")
def get_out_of_hand() -> dict[str, str]:
    """What came of each attempt: the name of the error, or "done"."""
    group = next(Path("/sys/fs/cgroup").rglob("mobius-supervisor.service"))
    attempts: dict[str, Callable[[], object]] = {
        "leave the control group": lambda: (group / "cgroup.procs").write_text("0"),
        "make a control group": (group / "own").mkdir,
        "signal the supervisor": lambda: os.kill(os.getppid(), 0),
        "signal others": signal_others,
    }
    return {name: outcome(attempt) for name, attempt in attempts.items()}


def tried(way: Callable[[], Iterator[bytes]], digest: str) -> str:
    try:
        return "found" if any(has_key(data, digest) for data in way()) else "not there"
    except OSError as error:
        return type(error).__name__


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "done"


def has_key(data: bytes, digest: str) -> bool:
    """Whether anything that looks like a key is the one with this digest."""
    return any(hashlib.sha256(word).hexdigest() == digest for word in re.findall(rb"mbx_\w+", data))


def signal_others() -> None:
    """Find anybody, the other children included, by guessing."""
    for pid in range(1, os.getpid() + 100):
        with contextlib.suppress(PermissionError, ProcessLookupError):
            if pid != os.getpid():
                os.kill(pid, 0)
                return
    raise PermissionError


def content(path: str) -> Iterator[bytes]:
    yield Path(path).read_bytes()


def descriptors(pid: int) -> Iterator[bytes]:
    for path in Path(f"/proc/{pid}/fd").iterdir():
        if path.is_file():
            yield path.read_bytes()


def memory(pid: int) -> Iterator[bytes]:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file, open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            try:
                yield os.pread(file.fileno(), min(end - start, LONGEST_PIECE), start)
            except (OSError, OverflowError):  # what is mapped but cannot be read
                continue


def trace(pid: int) -> Iterator[bytes]:
    if libc.ptrace(PTRACE_ATTACH, pid, None, None) == -1:
        raise PermissionError(os.strerror(ctypes.get_errno()))
    yield from memory(pid)


def link(path: str) -> Iterator[bytes]:
    os.link(path, "/tmp/link")
    return content("/tmp/link")


STEER = """
import os, resource, socket, sys
_, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
resource.setrlimit(resource.RLIMIT_RTTIME, (hard, hard))  # takes the mark off
if "daemon" in sys.argv and (os.fork() or os.setsid() or os.fork()):
    os._exit(0)
with socket.socket(socket.AF_UNIX) as end:
    end.connect(sys.argv[1])
    end.sendall(b"POST /drain HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    print(end.recv(100).split()[1].decode(), flush=True)
"""


@handler("steers")
def steers(path: str) -> list[str]:
    """What the supervisor answers at its control socket to the handler, a process of it, and a daemon of it."""
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(path)
        end.sendall(b"POST /drain HTTP/1.1\r\nHost: localhost\r\n\r\n")
        own = end.recv(100).split()[1].decode()
    command = [sys.executable, "-S", "-c", STEER, path]
    others = [subprocess.run([*command, kind], capture_output=True, text=True) for kind in ("child", "daemon")]
    return [own, *(each.stdout.strip() for each in others)]
