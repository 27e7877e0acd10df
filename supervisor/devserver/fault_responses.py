"""Faulty answers: wrong content, and correct content that is cut off, slow, or not sent.

No decisions and no state.  After an incomplete answer the connection is closed.
Tested by tests/devserver/test_fault_injector.py.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from email.utils import formatdate
from typing import Any

import msgspec
from aiohttp import web

from supervisor.devserver.answers import answer, error_answer
from supervisor.devserver.faults import (
    AnyFault,
    ExtraFields,
    Garbage,
    LoseAnswer,
    Oversized,
    Reset,
    Slow,
    Status,
    Truncate,
    WrongType,
)

_PROXY_PAGE = b"<html><body><h1>Welcome to the hotel's network</h1></body></html>"
_NOT_HTTP = b"\x16\x03\x01\x02\x00\x01 this is no answer\r\n\r\n"
_NEWS = {"lease_token": "lt_1", "hints": {"priority": [1, 2.5, None]}, "x-\N{SNOWMAN}": True}
_WITHOUT_LINGERING = struct.pack("ii", 1, 0)  # socket(7), SO_LINGER: closing sends a reset
_BODILESS = (204, 304)


def refusal(fault: Status) -> web.Response:
    """Return the answer with the status of the fault."""
    if fault.status in _BODILESS:
        response = web.Response(status=fault.status)
    elif fault.body is not None:
        response = web.Response(text=fault.body, status=fault.status)
    else:
        response = error_answer(fault.status, "injected_fault", "the fault script says so")
    if fault.retry_after is not None:
        response.headers["Retry-After"] = str(fault.retry_after)
    if fault.retry_date is not None:
        response.headers["Retry-After"] = formatdate(time.time() + fault.retry_date, usegmt=True)
    return response


def reworded(fault: AnyFault | None, response: web.Response) -> web.Response:
    """Return the answer with the wrong content of the fault; unchanged for other faults."""
    match fault:
        case WrongType():
            return answer(_mistyped(_value_of(response)))
        case Oversized(bytes=size):
            return _with(response, {"padding": "x" * size})
        case ExtraFields():
            return _with(response, _NEWS)
        case Garbage(of="json"):
            return web.Response(body=_PROXY_PAGE, content_type="text/html")
        case _:
            return response


async def send_badly(fault: AnyFault | None, request: web.Request, response: web.Response) -> bool:
    """Send the answer in the faulty way; return False without effect if the fault does not change the sending."""
    match fault:
        case LoseAnswer():
            hang_up(request)
        case Reset(bytes=size):
            await _reset_after(request, encoded(response)[:size])
        case Truncate(bytes=missing):
            await _close_after(request, encoded(response)[:-missing])
        case Slow(seconds=pause):
            await _trickle(request, encoded(response), pause)
        case Garbage(of="http"):
            await _close_after(request, _NOT_HTTP)
        case _:
            return False
    return True


def hang_up(request: web.Request) -> web.Response:
    """Abort the connection.  The returned answer is only for the call log."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=499)


def encoded(response: web.Response) -> bytes:
    """Return the bytes of a whole answer."""
    body = response.body if isinstance(response.body, bytes) else b""
    headers = {**response.headers, "Connection": "close"}
    if response.status not in _BODILESS:
        headers["Content-Length"] = str(len(body))
    lines = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _value_of(response: web.Response) -> Any:
    """Decode an answer; an empty body is an empty object."""
    return msgspec.json.decode(response.body) if isinstance(response.body, bytes) and response.body else {}


def _with(response: web.Response, news: dict[str, Any]) -> web.Response:
    return answer(_value_of(response) | news, 200 if response.status in _BODILESS else response.status)


def _mistyped(value: Any) -> Any:
    match value:
        case dict():
            return {name: _mistyped(item) for name, item in value.items()} or ["nothing"]
        case bool() | None:
            return "perhaps"
        case str():
            return 7
        case _:
            return {"wrong": value}


async def _reset_after(request: web.Request, data: bytes) -> None:
    await _send(request, data)
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _WITHOUT_LINGERING)
        request.transport.abort()


async def _close_after(request: web.Request, data: bytes) -> None:
    await _send(request, data)
    if request.transport is not None:
        request.transport.close()


async def _trickle(request: web.Request, data: bytes, pause: float) -> None:
    for number in range(len(data)):
        await asyncio.sleep(pause)  # before each byte: a client may disconnect after the last one
        await _send(request, data[number : number + 1])
    await _close_after(request, b"")


async def _send(request: web.Request, data: bytes) -> None:
    """Pass `data` to the kernel, because a reset would lose data in a buffer of this process."""
    if data and request.transport is not None and not request.transport.is_closing():
        request.transport.set_write_buffer_limits(0)
        request.transport.write(data)
        await request.writer.drain()
