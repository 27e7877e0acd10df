"""Handlers that can be watched while they work."""

import ctypes
import subprocess
import sys
import time
from pathlib import Path

from supervisor import Context, handler


@handler("shows", timeout="5m", memory="1GiB")
def shows(context: Context, until: str, lines: tuple[str, ...] = ()) -> None:
    context.progress(3, 8, "pages")
    for line in lines:
        print(line, flush=True)
    burn = [sys.executable, "-S", "-c", "while True: pass"]
    with subprocess.Popen(burn) as burning:
        context.emit("working", {})
        while not Path(until).exists():
            time.sleep(0.01)
        burning.kill()


@handler("sits-in-c")
def sits_in_c(context: Context) -> None:
    context.emit("working", {})
    ctypes.PyDLL(None).sleep(600)  # with the GIL held


@handler("prints-lines")
def prints_lines(context: Context, lines: tuple[str, ...]) -> None:
    for line in lines:
        print(line, flush=True)


@handler("succeeds-in-spite-of-all")
def succeeds_in_spite_of_all(context: Context) -> str:
    context.emit("working", {})
    while not context.cancelled:
        try:
            time.sleep(60)
        except BaseException:
            break
    return "rescued"
