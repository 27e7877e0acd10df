"""DNS resolver that runs each look-up in a daemon thread of its own.

The system's resolver may take half a minute and cannot be interrupted.  In the event loop's executor it would delay
other look-ups, and the end of the program.  Tested by tests/flows/test_dns.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import Sequence
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

_Info = tuple[int, int, int, str, tuple[Any, ...]]


class Resolver(AbstractResolver):
    """The system's resolver, without a cache, because aiohttp has one."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of `host`; raise `OSError` when it has none."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Sequence[_Info]] = loop.create_future()
        try:
            threading.Thread(target=_look_up, args=(host, port, family, found), daemon=True).start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
        return [_result(host, info) for info in await found]

    async def close(self) -> None:
        """Do nothing: daemon threads that still wait end with the process."""


def _look_up(host: str, port: int, family: socket.AddressFamily, found: asyncio.Future[Sequence[_Info]]) -> None:
    answer: Sequence[_Info] | Exception
    try:
        answer = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except (OSError, ValueError) as error:  # ValueError: the name is malformed
        answer = error
    with contextlib.suppress(RuntimeError):  # the loop is closed
        found.get_loop().call_soon_threadsafe(_set_answer, found, answer)


def _set_answer(found: asyncio.Future[Sequence[_Info]], answer: Sequence[_Info] | Exception) -> None:
    if found.done():  # the caller was cancelled
        return
    if isinstance(answer, Exception):
        found.set_exception(answer)
    else:
        found.set_result(answer)


def _result(name: str, info: _Info) -> ResolveResult:
    family, _, protocol, _, address = info
    scope = f"%{address[3]}" if family == socket.AF_INET6 and address[3] else ""
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(
        hostname=name, host=f"{address[0]}{scope}", port=address[1], family=family, proto=protocol, flags=flags
    )
