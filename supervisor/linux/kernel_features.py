"""Checks once, at the start, that the kernel and the sandbox support the system calls that the program needs."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from supervisor.linux import syscalls as kernel
from supervisor.linux.memfd import create_sealed


def missing() -> str | None:
    """Return a sentence about the first missing feature; None if all are available."""
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
    ("pidfd_open (Linux 5.3)", "uses it to watch and signal its children", _watch_a_process),
    ("PR_SET_CHILD_SUBREAPER (Linux 3.4)", "uses it to collect orphan processes", kernel.become_subreaper),
    ("/proc/PID/task/TID/children", "uses it to find orphan processes", _list_children),
    ("memfd_create with seals (Linux 3.17)", "uses it to pass stacks and large results", _make_a_file_in_memory),
    ("sending descriptors over unix sockets", "uses it to start children", _pass_a_descriptor),
)
