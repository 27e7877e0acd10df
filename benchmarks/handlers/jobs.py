"""The jobs of the benchmarks that take no time, or only wait."""

from __future__ import annotations

import socket
import time

from supervisor import Context, handler


@handler("trivial")
def trivial() -> None:
    """Nothing: what a job costs without its work."""


@handler("hold")
def hold(beacon: str, seconds: float) -> None:
    """Tell that it runs, then keep its slot."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(str(time.monotonic()).encode(), beacon)
    time.sleep(seconds)


@handler("spin")
def spin() -> None:
    """Compute, without an end."""
    number = 0
    while True:
        number += 1


@handler("emit")
def emit(context: Context, count: int) -> None:
    for number in range(count):
        context.emit("tick", {"number": number})


@handler("produce")
def produce(size: int) -> bytes:
    return bytes(size)


@handler("consume")
def consume(blob: str) -> None:
    assert blob
