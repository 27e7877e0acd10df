"""Handlers that are hard to stop.  Each tells the processes it has started by an event before it goes to work."""

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

from supervisor import Cancelled, Context, handler

HOURS = 2**31 - 1
"""Iterations of a key derivation, the most that it takes: they end long after any test."""


def tell(context: Context, *others: int) -> None:
    context.emit("working", {"pids": [os.getpid(), *others]})


def spin() -> None:
    while True:
        pass


@handler("python-loop")
def python_loop(context: Context) -> None:
    tell(context)
    spin()


@handler("c-call")
def c_call(context: Context) -> None:
    tell(context)
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", HOURS)


@handler("ignores-sigterm")
def ignores_sigterm(context: Context) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell(context)
    spin()


@handler("swallows-the-cancel")
def swallows_the_cancel(context: Context) -> None:
    tell(context)
    while True:
        try:
            spin()
        except BaseException:
            continue


@handler("cleans-up")
def cleans_up(context: Context, note: str) -> None:
    try:
        tell(context)
        spin()
    finally:
        Path(note).write_text("cleaned up")


@handler("succeeds-when-stopped", timeout="200ms")
def succeeds_when_stopped(context: Context) -> str:
    tell(context)
    while not context.cancelled:
        try:
            time.sleep(60)
        except BaseException:
            return "rescued"
    return "never"


@handler("async-sleep")
async def async_sleep(context: Context, note: str) -> None:
    import asyncio

    try:
        tell(context)
        await asyncio.sleep(3600)
    finally:
        Path(note).write_text("cleaned up")


@handler("async-group")
async def async_group(context: Context) -> None:
    """Compute in the body of a task group, in one of another, whose tasks wait."""
    import asyncio

    async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
        outer.create_task(asyncio.sleep(3600))
        inner.create_task(asyncio.sleep(3600))
        tell(context)
        spin()


@handler("ends-in-a-group")
def ends_in_a_group(context: Context, message: str) -> None:
    """Be stopped, and fail in one's cleanup."""
    try:
        tell(context)
        spin()
    except Cancelled as cancelled:
        raise BaseExceptionGroup(message, [cancelled, ValueError(message)]) from None


@handler("with-subprocess")
def with_subprocess(context: Context) -> None:
    process = subprocess.Popen(["sleep", "3600"])
    tell(context, process.pid)
    process.wait()


@handler("with-own-session")
def with_own_session(context: Context) -> None:
    process = subprocess.Popen(["sleep", "3600"], start_new_session=True, env={})
    tell(context, process.pid)
    spin()


@handler("with-daemon")
def with_daemon(context: Context) -> None:
    tell(context, daemon())
    spin()


@handler("leaves-a-daemon")
def leaves_a_daemon(context: Context) -> str:
    tell(context, daemon())
    return "done"


def daemon() -> int:
    """Start a process the way daemons do, in a session of its own and nobody's child; return its pid."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writing, str(os.getpid()).encode())
            os.close(writing)
            while True:
                time.sleep(3600)
        os._exit(0)
    os.wait()
    os.close(writing)
    return int(os.read(reading, 20))


@handler("async-waits")
async def async_waits(context: Context) -> None:
    import asyncio

    async def waits_for_another() -> None:
        await asyncio.sleep(3600)

    tell(context)
    async with asyncio.TaskGroup() as group:
        group.create_task(waits_for_another())
