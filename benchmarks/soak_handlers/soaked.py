"""The jobs of the soak: short ones of every kind.

Each leaves a ticket as the last thing that it does: a file named for its job and attempt says that the handler has
finished and that its outcome is owed to the server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NoReturn

from supervisor import Context, handler


def leave_ticket(context: Context, tickets: str) -> None:
    (Path(tickets) / f"{context.job_id}.{context.attempt}").touch()


@handler("soak-result")
def result(context: Context, tickets: str, number: int) -> dict[str, int]:
    leave_ticket(context, tickets)
    return {"number": number, "pid": os.getpid()}


@handler("soak-failure")
def failure(context: Context, tickets: str) -> NoReturn:
    leave_ticket(context, tickets)
    raise ValueError("as it was asked to")


@handler("soak-events")
def events(context: Context, tickets: str, count: int) -> int:
    for number in range(count):
        context.emit("tick", {"number": number})
    leave_ticket(context, tickets)
    return count


@handler("soak-big")
def big(context: Context, tickets: str, size: int) -> bytes:
    content = os.urandom(1024) * (size // 1024)
    leave_ticket(context, tickets)
    return content


@handler("soak-sleep")
def sleep(context: Context, tickets: str, seconds: float) -> None:
    time.sleep(seconds)
    leave_ticket(context, tickets)


@handler("soak-timeout", timeout="200ms", cancel_grace="200ms")
def timeout() -> None:
    while True:
        pass


@handler("soak-deaf", timeout="200ms", cancel_grace="200ms")
def deaf() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass


@handler("soak-daemon")
def daemon(context: Context, tickets: str) -> None:
    subprocess.Popen(["sleep", "3600"], start_new_session=True, env={})
    leave_ticket(context, tickets)


def crash(context: Context, tickets: str, number: int) -> int:
    """Die at the first attempt."""
    if context.attempt == 1:
        os.kill(os.getpid(), number)
        time.sleep(60)
    leave_ticket(context, tickets)
    return number


# Many of them: a handler that kills its child three times in a row is refused for a while.
for count in range(30):
    handler(f"soak-crash-{count}")(crash)
