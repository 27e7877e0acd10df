"""What the program needs of the kernel, and of the sandbox it runs in: looked for once, before anything is started."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from supervisor.linux import syscalls as kernel
from supervisor.linux.memfd import create_sealed


def missing() -> str | None:
    """Return a sentence about the first feature that is not there; None when all of them are."""
    for name, why, probe in _NEEDED:
        try:
            probe()
        except OSError as error:
            return (
                f"{name} is not available ({error.strerror}): the supervisor {why}; "
                "run it on a newer kernel, or allow this in the sandbox (seccomp profile, gVisor)"
            )
    return None


def _watch_a_process() -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(pidfd, 0)
    finally:
        os.close(pidfd)


def _pass_a_descriptor() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [ours.fileno()])
        _, received, _ = kernel.receive(theirs, 1)
        for descriptor in received:
            os.close(descriptor)


def _make_a_file_in_memory() -> None:
    os.close(create_sealed("probe", []))


def _list_children() -> None:
    Path("/proc/thread-self/children").read_bytes()


_NEEDED: tuple[tuple[str, str, Callable[[], object]], ...] = (
    ("pidfd_open (Linux 5.3)", "watches and signals its children by it", _watch_a_process),
    ("PR_SET_CHILD_SUBREAPER (Linux 3.4)", "collects what jobs leave behind by it", kernel.become_subreaper),
    ("/proc/PID/task/TID/children", "finds what jobs leave behind by it", _list_children),
    ("memfd_create with seals (Linux 3.17)", "passes stacks and big results by it", _make_a_file_in_memory),
    ("sending descriptors over unix sockets", "starts each child by it", _pass_a_descriptor),
)
