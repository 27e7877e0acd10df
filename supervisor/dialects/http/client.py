"""`JobServer` over HTTP: one method per endpoint, one table from status to error, no retries.

Runs in the parent, and only here is the API key in use.  Claims, heartbeats and all other calls have separate
connections, so that long polls and large results cannot delay a heartbeat.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp import hdrs
from yarl import URL

from supervisor.concurrency.cancel_scope import CancelScope
from supervisor.concurrency.timers import TimerQueue
from supervisor.dialects.http import codec
from supervisor.dialects.http.connection import Connector
from supervisor.dialects.http.error_text import foreign_refusal, in_words, redirected
from supervisor.dialects.http.fast_request import Request, way_through
from supervisor.dialects.http.large_body import LargeBody
from supervisor.job import Blob, Directive, Event, Fence, Job, Outcome
from supervisor.job_server import (
    ClaimRefused,
    KeyRefused,
    RateLimited,
    RequestRejected,
    ServerError,
    StaleFence,
    Unavailable,
    Unreachable,
)
from supervisor.linux.spare_descriptor import SpareDescriptor
from supervisor.proxy import Proxy
from supervisor.version import __version__

CONNECT_TIMEOUT = 5.0
"""Seconds for opening a connection."""
ANSWER_TIMEOUT = 30.0
"""Seconds for a call that the server answers at once."""
CLAIM_MARGIN = 10.0
"""Seconds that a claim may take in addition to the wait that it asks for."""
MIN_UPLOAD_BYTES_PER_SECOND = 256 * 1024
"""Minimum upload rate of a large result; a slower call counts as unanswered."""
MAX_ANSWER_BYTES = 1024 * 1024
MAX_CLAIM_BYTES = 256 * 1024 * 1024
MAX_RETRY_AFTER = 600.0
"""Upper bound in seconds for a `Retry-After` of the server."""
CHUNK_BYTES = 256 * 1024
_REFUSALS = (401, 403)
_PLAIN = re.compile(r"[A-Za-z0-9_-]+").fullmatch
"""Matches text that needs no escaping in a path."""


@dataclass(frozen=True, slots=True)
class Account:
    """Server, project and identity of this worker."""

    base_url: str
    project: str
    worker_id: str
    queues: tuple[str, ...]
    worker_name: str = ""
    proxy: Proxy | None = None


Reread = Callable[[], Awaitable[str | None]]
"""Reads the key from its source again; None when there is no key."""
Reader = Callable[[aiohttp.ClientResponse], Awaitable[bytes]]
"""Reads the body of an answer."""


class _Answer(msgspec.Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    body: bytes


async def _read(response: aiohttp.ClientResponse) -> bytes:
    length, encoding = response.content_length, response.headers.get("Content-Encoding")
    if (
        length is not None and length <= MAX_ANSWER_BYTES and encoding is None
    ):  # compressed bytes may expand to gigabytes
        return await response.read()
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            response.close()
            raise Unavailable(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


class Client:
    """A client of one server; use it with `async with`."""

    def __init__(self, account: Account, token: str, reread: Reread | None = None) -> None:
        """`reread` reads the key again from its source, because a key may be rotated while the program runs."""
        self._account = account
        self._token = token
        self._reread = reread
        jobs = f"{account.base_url.rstrip('/')}/v1/projects/{_segment(account.project)}/jobs"
        self._jobs_url = URL(jobs, encoded=True)
        self._below_jobs = f"{self._jobs_url.raw_path}/"
        self._claim_url = self._url_of("claim")
        self._timers = TimerQueue()
        self._claims = _session(self._jobs_url)
        self._beats = _session(self._jobs_url)
        self._rest = _session(self._jobs_url)
        self._sessions = (self._claims, self._beats, self._rest)
        self._reserve = SpareDescriptor()
        self._use(token)

    async def __aenter__(self) -> Client:
        self._reserve.fill()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reserve.close()
        for session in self._sessions:
            await session.close()

    def renew(self, token: str, queues: tuple[str, ...], proxy: Proxy | None) -> None:
        """Use this key, these queues and this proxy for all further calls."""
        self._use(token)
        self._account = replace(self._account, queues=queues, proxy=proxy)

    async def claim(self, actions: Sequence[str], *, wait: float) -> Job | None:
        """See `JobServer.claim`; the methods below are documented there, too."""
        account = self._account
        body = codec.claim_request(
            account.worker_id, account.queues, tuple(actions), wait, name=account.worker_name, version=__version__
        )
        spill = LargeBody(MAX_CLAIM_BYTES, self._reserve)
        try:
            answer = await self._send(self._claims, "POST", self._claim_url, body, wait + CLAIM_MARGIN, read=spill.read)
            if answer.status == 204:
                return None
            if answer.status == 404:
                raise ClaimRefused(
                    f"the server has no project {account.project!r}, or is not a Mobius server: correct --project or "
                    f"--base-url ({_status_and_text(answer)})"
                )
            if answer.status == 409:
                raise ClaimRefused(_status_and_text(answer))
            _raise_for(answer)
            return codec.claimed_job(answer.body, None if spill.is_empty else spill.take)
        finally:
            spill.close()

    async def heartbeat(self, fence: Fence, *, timeout: float) -> Directive:
        answer = await self._send(
            self._beats, "POST", self._url(fence, "/heartbeat"), codec.fence_request(fence), timeout
        )
        _raise_for(answer)
        directive = codec.directive(answer.body)
        if directive is None:
            raise StaleFence("the server answered ok: false")
        return directive

    async def send_events(self, fence: Fence, events: Sequence[Event]) -> None:
        body = codec.events_request(fence, events)
        _raise_unless_accepted(await self._send(self._rest, "POST", self._url(fence, "/events"), body, ANSWER_TIMEOUT))

    async def complete(self, fence: Fence, outcome: Outcome) -> None:
        head, blob, tail = codec.complete_request(fence, outcome)
        url = self._url(fence, "/complete")
        if blob is None:
            _raise_unless_accepted(await self._send(self._rest, "POST", url, head, ANSWER_TIMEOUT))
            return
        size = len(head) + blob.size + len(tail)

        def body() -> aiohttp.Payload:  # a new one for each try, because it can be read only once
            return aiohttp.AsyncIterablePayload(_parts(head, blob, tail), content_type="application/json")

        timeout, headers = ANSWER_TIMEOUT + size / MIN_UPLOAD_BYTES_PER_SECOND, {"Content-Length": str(size)}
        _raise_unless_accepted(await self._send(self._rest, "POST", url, body, timeout, headers=headers))

    async def is_settled(self, fence: Fence) -> bool:
        return (await self._look_up(fence)).is_settled_by(fence)

    async def lease_length(self, fence: Fence) -> float | None:
        return (await self._look_up(fence)).lease_length

    async def _look_up(self, fence: Fence) -> codec.JobState:
        answer = await self._send(self._rest, "GET", self._url(fence), None, ANSWER_TIMEOUT)
        _raise_for(answer)
        return codec.job_state(answer.body)

    def _url(self, fence: Fence, call: str = "") -> URL:
        return self._url_of(f"{_segment(fence.job_id)}{call}")

    def _url_of(self, path: str) -> URL:
        # encoded=True: yarl would decode and normalize escaped characters ("a/b", "..").
        return self._jobs_url.with_path(self._below_jobs + path, encoded=True)

    async def _send(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        body: Any,
        seconds: float,
        *,
        read: Reader = _read,
        headers: Mapping[str, str] | None = None,
    ) -> _Answer:
        """Send a request, and once more if the key is refused and has changed meanwhile."""
        used, answer, proxy = self._token, None, self._account.proxy
        is_stream = callable(body)
        data = body() if is_stream else body
        try:
            # The timeout covers the whole call, not each read: a server may send one byte at a time.
            with CancelScope(self._timers, after=seconds):
                way = {"headers": headers} if proxy is None else way_through(proxy, url, headers)
                response = await session.request(method, url, data=data, allow_redirects=False, **way)
                if (whole := None if is_stream else _received_body(response)) is None:
                    async with response:
                        whole = await (read if response.status == 200 else _read)(response)
                answer = _Answer(response.status, response.headers, whole)
            if answer is None:
                raise TimeoutError
        except (aiohttp.ClientError, OSError, ValueError) as error:  # a TimeoutError is an OSError
            raise Unreachable(in_words(error, url, seconds, proxy.name if proxy else None)) from error
        if answer.status in _REFUSALS and await self._is_renewed(used):
            return await self._send(session, method, url, body, seconds, read=read, headers=headers)
        return answer

    async def _is_renewed(self, used: str) -> bool:
        if self._token == used and self._reread is not None and (token := await self._reread()) is not None:
            self._use(token)
        return self._token != used

    def _use(self, token: str) -> None:
        self._token = token
        for session in self._sessions:
            session.headers[hdrs.AUTHORIZATION] = f"Bearer {token}"


def _session(url: URL) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        request_class=Request,
        connector=Connector(),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            hdrs.HOST: url.host_port_subcomponent or "",
            hdrs.ACCEPT: "application/json",
            hdrs.ACCEPT_ENCODING: "gzip, deflate",
            hdrs.CONTENT_TYPE: "application/json",
            hdrs.USER_AGENT: f"mobius-supervisor/{__version__}",
        },
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),  # each call has a limit of its own
        auto_decompress=True,
    )


def _received_body(response: aiohttp.ClientResponse) -> bytes | None:
    """Return the body if it arrived together with the head; the connection is then already free."""
    if response.status == 204:
        return b""
    is_whole = response.content.is_eof() and hdrs.CONTENT_ENCODING not in response.headers
    return response.content.read_nowait() if is_whole else None


async def _parts(head: bytes, blob: Blob, tail: bytes) -> AsyncIterator[bytes]:
    yield head
    for offset in range(0, blob.size, CHUNK_BYTES):
        wanted = min(CHUNK_BYTES, blob.size - offset)  # bytes after the result do not belong to it
        piece = os.pread(blob.descriptor, wanted, offset)
        if len(piece) < wanted:  # the child may have kept the file, and truncated it
            raise OSError("the file of the result shrank while it was read")
        yield piece
    yield tail


def _raise_unless_accepted(answer: _Answer) -> None:
    """Raise the error of an answer to events or to a report, unless the server accepted them.

    A 200 without JSON is not from the job server: the login page of a gateway must not lose a result.
    """
    if answer.status == 204:
        return
    _raise_for(answer)
    if answer.body and not codec.is_object(answer.body):
        kind = answer.headers.get(hdrs.CONTENT_TYPE, "without JSON")[: codec.MAX_ERROR_TEXT_CHARS]
        raise Unavailable(f"200 {kind}: the answer is perhaps not from the job server, but from a gateway before it")


def _raise_for(answer: _Answer) -> None:
    """Raise the error for the status of an answer about a job; see the table in `job_server`."""
    if answer.status in (200, 204):
        return
    raise _error_of(answer)


def _error_of(answer: _Answer) -> ServerError:
    match answer.status:
        case 401 | 403:
            is_own = codec.is_own_error(answer.headers.get(hdrs.CONTENT_TYPE, ""), answer.body)
            return (
                KeyRefused(_status_and_text(answer))
                if is_own
                else Unavailable(foreign_refusal(_status_and_text(answer)))
            )
        case 404 | 409:
            return StaleFence(_status_and_text(answer))
        case 429:
            return RateLimited(_status_and_text(answer), retry_after=retry_after(answer.headers))
        case 407:  # from a proxy, not about the request
            return Unavailable(f"a proxy refuses the call: {_status_and_text(answer)}; correct --proxy")
        case 408 | 425:
            return Unavailable(_status_and_text(answer))
        case status if 400 <= status < 500:
            return RequestRejected(_status_and_text(answer), status=status)
        case status if 300 <= status < 400 and "Location" in answer.headers:
            return Unavailable(redirected(status, answer.headers["Location"]))
        case _:  # 5xx mostly
            return Unavailable(_status_and_text(answer))


def _status_and_text(answer: _Answer) -> str:
    return f"{answer.status} {codec.error_text(answer.body)}".rstrip()


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds of `Retry-After`, given as a number or as an HTTP date (relative to the answer's `Date`)."""
    value = headers.get("Retry-After", "")
    if value.isascii() and value.isdigit():
        return min(float(value), MAX_RETRY_AFTER)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, min(wait.total_seconds(), MAX_RETRY_AFTER))
    return 1.0


def _segment(text: str) -> str:
    """Escape `text` as one segment of a path, so that `.` and `..` cannot change the path."""
    if _PLAIN(text):  # most ids are
        return text
    return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")
