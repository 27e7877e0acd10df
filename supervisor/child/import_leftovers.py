"""Threads and descriptors that the import of a module left in the zygote.

A fork does not copy the threads, and all children share the descriptors.  Runs in the zygote before and after each
import; the warnings are shown by `check` and in the log.  Tested by tests/child/test_handler_authors.py.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from supervisor.text.value_repr import value_repr

_TASKS, _DESCRIPTORS = Path("/proc/self/task"), Path("/proc/self/fd")
_HARMLESS = {"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"}
_MAX_NAMES = 3
"""Names of threads in one warning."""


@dataclass(frozen=True, slots=True)
class OpenResources:
    """The threads of this process by kernel id, and its descriptors by number and target."""

    threads: dict[int, str]
    descriptors: frozenset[tuple[int, str]]

    @classmethod
    def now(cls) -> OpenResources:
        return cls(dict(_threads()), frozenset(_descriptors()))

    def warnings_since(self, before: OpenResources, module: str, file: str) -> list[str]:
        """Return one sentence for each thread or descriptor that `module` has left since `before`."""
        python = {thread.native_id: _name_of(thread) for thread in threading.enumerate()}
        new = [tid for tid in self.threads if tid not in before.threads]
        warnings = [_python_thread(module, file, python[tid]) for tid in new if tid in python]
        if native := [self.threads[tid] for tid in new if tid not in python]:
            warnings.append(_native_threads(module, file, native))
        left = sorted(self.descriptors - before.descriptors)
        warnings += [warning for number, target in left if (warning := _descriptor(module, file, number, target))]
        return warnings


def _threads() -> Iterator[tuple[int, str]]:
    for task in _TASKS.iterdir():
        with suppress(OSError):  # the thread has ended
            yield int(task.name), (task / "comm").read_text().strip()


def _descriptors() -> Iterator[tuple[int, str]]:
    for link in _DESCRIPTORS.iterdir():
        with suppress(OSError):  # the descriptor of this listing itself
            yield int(link.name), str(link.readlink())


def _name_of(thread: threading.Thread) -> str:
    try:
        return value_repr(thread.name)
    except Exception:  # noqa: BLE001 - a subclass may raise anything
        return value_repr(thread)


def _python_thread(module: str, file: str, name: str) -> str:
    return (
        f"{file}: module {module!r} started the thread {name} when it was imported; "
        "it does not exist in the processes that run the handlers: start it in the handler"
    )


def _native_threads(module: str, file: str, names: list[str]) -> str:
    listed = ", ".join(sorted(set(names))[:_MAX_NAMES])
    count = "a native thread" if len(names) == 1 else f"{len(names)} native threads"
    return (
        f"{file}: module {module!r} started {count} ({listed}) when it was imported; they do not exist in the "
        "processes that run the handlers, where a call that needs them hangs: make that call in the handler first"
    )


def _descriptor(module: str, file: str, number: int, target: str) -> str | None:
    left = f"{file}: module {module!r} left"
    if target.startswith("socket:"):
        return (
            f"{left} {_socket(number)} open when it was imported; all processes that run the handlers share it "
            "and read each other's answers: open it in the handler"
        )
    if target in _HARMLESS or _is_harmless(number):
        return None
    if target.startswith("/dev/"):
        return (
            f"{left} the device {target} open when it was imported; it may not work in the processes that run the "
            "handlers: open it in the handler"
        )
    what = f"the file {target}" if target.startswith("/") else f"a descriptor ({target})"
    return (
        f"{left} {what} open when it was imported; all processes that run the handlers share it and its position: "
        "open it in the handler"
    )


def _is_harmless(number: int) -> bool:
    """True for folders and for files opened to append: they have no read or write position to share."""
    try:
        mode = os.fstat(number).st_mode
        with open(f"/proc/self/fdinfo/{number}") as file:
            flags = next((int(line.split()[1], 8) for line in file if line.startswith("flags:")), 0)
    except OSError:  # closed since the listing
        return True
    return stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and bool(flags & os.O_APPEND))


def _socket(number: int) -> str:
    try:
        with socket.socket(fileno=os.dup(number)) as end:
            return _described(end)
    except OSError:
        return "a socket"


def _described(end: socket.socket) -> str:
    with suppress(OSError):
        return f"a connection to {_address(end.getpeername())}"
    if end.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return f"a listening socket on {_address(end.getsockname())}"
    return f"a socket on {_address(end.getsockname())}"


def _address(address: object) -> str:
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    text = os.fsdecode(address) if isinstance(address, bytes) else str(address)
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "@") or "an unnamed peer"
