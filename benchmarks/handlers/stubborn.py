"""The jobs that are to be killed: each starts a process, tells the pids and goes on without an end."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess

from supervisor import handler


@handler("kill-python", cancel_grace="100ms")
def python_loop(beacon: str) -> None:
    _tell(beacon)
    number = 0
    while True:
        number += 1


@handler("kill-c", cancel_grace="100ms")
def c_loop(beacon: str) -> None:
    """In one C call that never gives up the interpreter's lock: no Python code runs any more."""
    _tell(beacon)
    all(itertools.repeat(1))


@handler("kill-deaf", cancel_grace="100ms")
def deaf(beacon: str) -> None:
    """Whatever it is told by SIGTERM, it goes on."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _tell(beacon)
    while True:
        with contextlib.suppress(BaseException):
            sum(range(1000))


def _tell(beacon: str) -> None:
    started = subprocess.Popen(["sleep", "1000"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(json.dumps([os.getpid(), started.pid]).encode(), beacon)
