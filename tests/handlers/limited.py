"""Handlers with limits of their own."""

import os
import threading
import time
from pathlib import Path

from supervisor import Context, handler


@handler("greedy", memory="150MiB")
def greedy(context: Context, megabytes: int) -> int:
    hoard = []
    for _ in range(megabytes):
        hoard.append(b"x" * 2**20)
        time.sleep(0.002)
    return len(hoard)


@handler("greedy-child", memory="150MiB")
def greedy_child(context: Context) -> None:
    if os.fork() == 0:
        hoard = b"x" * (400 * 2**20)
        time.sleep(60)
        os._exit(len(hoard) and 0)
    os.wait()


@handler("one-at-a-time", max_concurrent=1)
def one_at_a_time(seconds: float) -> list[float]:
    began = time.monotonic()
    time.sleep(seconds)
    return [began, time.monotonic()]


@handler("fresh", isolation="fresh")
def fresh() -> int:
    return os.getpid()


@handler("two-per-child", max_jobs_per_child=2)
def two_per_child() -> int:
    return os.getpid()


@handler("keeps-memory", max_memory_per_child="100MiB")
def keeps_memory(megabytes: int) -> int:
    threading.current_thread().hoard = b"x" * (megabytes * 2**20)  # type: ignore[attr-defined]  # it is to be kept
    return os.getpid()


@handler("polite", nice=11, threads=3)
def polite() -> dict[str, object]:
    return {"nice": os.getpriority(os.PRIO_PROCESS, 0), "threads": os.environ["OMP_NUM_THREADS"]}


@handler("weight")
def weight() -> str:
    """The weight of its session, once it has one: the kernel may accept it a while after the job has begun."""
    give_up_at = time.monotonic() + 15
    while (weight := Path("/proc/self/autogroup").read_text()).endswith("nice 0\n") and time.monotonic() < give_up_at:
        time.sleep(0.01)
    return weight


@handler("stuck-in-c", timeout="200ms", cancel_grace="200ms")
def stuck_in_c() -> None:
    import hashlib

    print("entering the call")
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2**31 - 1)
