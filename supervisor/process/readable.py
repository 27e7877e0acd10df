"""Waiting for a descriptor in the loop.  Runs in the parent."""

from __future__ import annotations

import asyncio


async def wait_readable(descriptor: int) -> None:
    """Wait until `descriptor` is readable: for a pidfd, until its process has ended (pidfd_open(2))."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
