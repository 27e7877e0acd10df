"""What a request is on the wire, on both event loops, with a real server."""

from __future__ import annotations

import random
from typing import Any

import aiohttp
import pytest

from supervisor.dialects.http.fast_request import MAX_SMALL_BODY_BYTES, Request
from tests.raw_server import answering, raw_server

HEADERS = {"Host": "a.server:99", "Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": "ours", "X-Own": "yes"}


def session(**changes: Any) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(request_class=Request, headers=HEADERS, **changes)


async def test_its_headers_are_those_of_the_session_and_the_length_of_its_body() -> None:
    async with raw_server(answering(204)) as server, session() as ours:
        await ours.post(server.url, data=b"{}", headers={"X-Further": "this once"})

    (request,) = server.requests
    expected = {**HEADERS, "X-Further": "this once", "Content-Length": "2"}
    assert {name: value for name, value in request.headers.items() if name != "content-type"} == {
        name.lower(): value for name, value in expected.items()
    }


async def test_what_is_missing_in_them_is_added() -> None:
    async with raw_server(answering(204)) as server, session(skip_auto_headers=["X-Own"]) as ours:
        del ours.headers["User-Agent"]
        await ours.get(server.url)

    assert server.requests[0].headers["user-agent"].startswith("Python")


@pytest.mark.parametrize("size", [0, 1, MAX_SMALL_BODY_BYTES, MAX_SMALL_BODY_BYTES + 1, 2**20])
async def test_a_body_of_any_size_arrives_whole(size: int) -> None:
    body = random.Random(size).randbytes(size)
    async with raw_server(answering(204)) as server, session() as ours:
        for _ in range(2):
            await ours.post(server.url, data=body)

    assert [request.body for request in server.requests] == [body, body]
    assert [request.headers["content-length"] for request in server.requests] == [str(size)] * 2
    assert server.connections == 1


async def test_a_body_that_is_no_bytes_is_sent_as_aiohttp_sends_it() -> None:
    async with raw_server(answering(204)) as server, session() as ours:
        await ours.post(server.url, data="text", headers={"Content-Type": "text/plain"})

    assert server.requests[0].body == b"text"


async def test_head_and_body_keep_their_order_when_the_connection_takes_nothing_more() -> None:
    async with raw_server(answering(204)) as server, session() as ours:
        await ours.post(server.url, data=b"first")
        assert ours.connector is not None
        (((waiting, _),),) = ours.connector._conns.values()
        waiting.pause_writing()  # as its transport does when too much of the last request is not read

        await ours.post(server.url, data=b"second")

    assert [request.body for request in server.requests] == [b"first", b"second"]
    assert server.connections == 1
