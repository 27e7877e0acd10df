"""Handlers that use up memory and processes."""

import os
import time
from pathlib import Path

from supervisor import Context, handler

MEGABYTE = 2**20

kept = bytearray()


@handler("eats", memory="100MiB")
def eats(megabytes: int) -> int:
    return len(bytearray(b"x") * (megabytes * MEGABYTE)) // MEGABYTE


@handler("eats-freely")
def eats_freely(megabytes: int) -> int:
    return eats(megabytes)


@handler("keeps")
def keeps(megabytes: int) -> int:
    global kept
    kept = bytearray(b"x") * (megabytes * MEGABYTE)
    return megabytes


@handler("has-one-that-eats", memory="100MiB")
def has_one_that_eats(context: Context, megabytes: int) -> None:
    go, told = os.pipe()
    eater = os.fork()
    if eater == 0:
        os.setsid()
        os.read(go, 1)
        eats(megabytes)
        os._exit(0)
    context.emit("working", {"pids": [os.getpid(), eater]})
    os.write(told, b"!")
    while True:
        time.sleep(3600)


@handler("forks-until-refused")
def forks_until_refused() -> int:
    count = 0
    try:
        while os.fork():
            count += 1
        time.sleep(3600)
    except BlockingIOError:
        return count


@handler("where-it-is")
def where_it_is() -> dict[str, str]:
    path = Path("/proc/self/cgroup").read_text().partition("0::")[2].strip()
    return {"path": path, "memory_max": Path(f"/sys/fs/cgroup{path}/memory.max").read_text().strip()}
