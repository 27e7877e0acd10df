"""Handlers that end in every way a handler can end."""

import builtins
import ctypes
import functools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from supervisor import Cancelled, Context, PermanentError, handler


@dataclass
class Size:
    width: int
    height: int


@handler("echo")
def echo(context: Context, **parameters: object) -> dict[str, object]:
    return parameters


@handler("area")
def area(size: Size, times: int = 1) -> int:
    return size.width * size.height * times


@handler("nothing")
def nothing() -> None:
    """Return nothing."""


@handler("raw-bytes")
def raw_bytes() -> bytes:
    return bytes(range(256))


@handler("big-result")
def big_result(size: int) -> bytes:
    return b"0123456789abcdef" * (size // 16)


@handler("async-echo")
async def async_echo(text: str) -> str:
    import asyncio

    await asyncio.sleep(0)
    return text


@handler("raise")
def raise_value_error() -> NoReturn:
    raise ValueError("there is no such page")


@handler("async-raise")
async def raise_in_coroutine() -> NoReturn:
    raise ValueError("there is no such page")


@handler("raise-permanent")
def raise_permanent() -> NoReturn:
    raise PermanentError("the document is not a document")


@handler("raise-new")
def raise_new(name: str) -> NoReturn:
    raise type(name, (Exception,), {})("of a new class")


@handler("raise-cancelled")
def raise_cancelled() -> NoReturn:
    raise Cancelled("on my own")


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """As decorators are that know nothing of coroutines."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return call


@handler("async-hidden")
@traced
async def async_hidden() -> str:
    return "never"


@handler("exit")
def exit_() -> NoReturn:
    sys.exit(3)


@handler("die-by-signal")
def die_by_signal(number: int) -> None:
    print("about to die", flush=True)
    os.kill(os.getpid(), number)
    signal.pause()


@handler("die-by-exit")
def die_by_exit(code: int) -> NoReturn:
    os._exit(code)


@handler("segfault")
def segfault() -> None:
    ctypes.string_at(0)


@handler("not-a-number")
def not_a_number() -> dict[str, float]:
    return {"ratio": math.nan}


@handler("not-json")
def not_json() -> object:
    return threading.Lock()


@handler("too-slow", timeout="200ms")
def too_slow() -> None:
    while True:
        pass


@handler("prints")
def prints(line: str) -> None:
    print(line)
    os.write(1, b"raw on descriptor 1\n")
    os.write(2, b"raw on descriptor 2\n")


@handler("emits")
def emits(context: Context, count: int, kind: str = "tick") -> int:
    for number in range(count):
        context.emit(kind, {"number": number})
    return count


@handler("emits-then-sleeps")
def emits_then_sleeps(context: Context, count: int, seconds: float) -> int:
    for number in range(count):
        context.emit("tick", {"number": number})
    time.sleep(seconds)
    return count


@handler("logs")
def logs(context: Context, level: int = 30) -> None:
    context.log.log(level, "page %d of %s is odd", 3, "the book")


@handler("logs-in-a-fork")
def logs_in_a_fork(context: Context) -> None:
    if os.fork() == 0:
        context.log.warning("page %d of %s is odd", 3, "the book")
        os._exit(0)
    os.wait()


@handler("computes")
def computes(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


@handler("leaves-a-thread")
def leaves_a_thread() -> str:
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    return "done"


@handler("raises")
def raises(name: str) -> None:
    if name == "RecursionError":
        raises(name)
    raise getattr(builtins, name)


@handler("logs-much")
def logs_much(context: Context, lines: int, seconds: float = 1.0) -> None:
    for number in range(lines):
        context.log.info("line %d of %d%s", number, lines, "." * 100)
    context.emit("said", {})
    time.sleep(seconds)


@handler("environment")
def environment() -> dict[str, str]:
    return dict(os.environ)


@handler("descriptors")
def descriptors() -> dict[str, str]:
    # The one that lists the folder is in the list, and gone by the time its link is read.
    entries = list(Path("/proc/self/fd").iterdir())
    return {entry.name: str(entry.readlink()) for entry in entries if entry.is_symlink()}


@handler("closes-descriptors")
def closes_descriptors(first: int, last: int) -> None:
    os.closerange(first, last)


@handler("garbage-on-every-descriptor")
def garbage_on_every_descriptor() -> None:
    for descriptor in range(64):
        try:
            os.write(descriptor, b"GET / HTTP/1.1\r\n\r\n")
        except OSError:
            continue


@handler("workdir")
def workdir(context: Context) -> str:
    (context.workdir / "deep").mkdir()
    (context.workdir / "deep" / "file").write_text("scratch")
    return str(context.workdir)


@handler("sleeps")
def sleeps(seconds: float) -> None:
    time.sleep(seconds)


@handler("sleeps-idempotently", idempotent=True)
def sleeps_idempotently(seconds: float) -> None:
    time.sleep(seconds)


@handler("pid")
def pid() -> int:
    return os.getpid()


@handler("about")
def about(context: Context) -> dict[str, object]:
    return {
        "job_id": context.job_id,
        "run_id": context.run_id,
        "workflow_name": context.workflow_name,
        "step_name": context.step_name,
        "action": context.action,
        "attempt": context.attempt,
        "queue": context.queue,
        "worker_id": context.worker_id,
        "parameters": context.parameters,
        "cancelled": context.cancelled,
    }
