"""The `submit` command: starts a run of one step and follows it.  A client of the server's public API; runs no jobs."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NoReturn
from urllib.parse import quote

import aiohttp
import click
import msgspec
from yarl import URL

from supervisor.dialects.http import codec as schema
from supervisor.dialects.http.error_text import foreign_refusal, in_words, redirected
from supervisor.dialects.http.fast_request import ProxiedRequest, way_through
from supervisor.exit_code import ExitCode
from supervisor.job_server import Unavailable
from supervisor.proxy import Proxy
from supervisor.settings.resolution import ConfigError
from supervisor.text.printable import escaped
from supervisor.text.size import format_size
from supervisor.version import __version__

_TERMINAL = ("completed", "failed")
# The server sends a keepalive about every 15 s; three missing ones mean that the connection is dead.
_MAX_SILENCE = 45.0
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_MAX_SILENCE)
_RECONNECT_AFTER = 0.5
# A stream starts with the current state of the run and then sends its history.  So the stream of an ended run is
# complete only after this many seconds without an event.
_END_TIMEOUT = 0.3


class SubmitError(Exception):
    """The run was not started or cannot be followed; one sentence.  Caught by `cli`, which exits with `code`."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Target:
    """The server and project for a run, and the key."""

    base_url: str
    project: str
    token: str = field(repr=False)
    proxy: Proxy | None = None

    @property
    def runs_url(self) -> str:
        return f"{self.base_url}/v1/projects/{quote(self.project, safe='')}/runs"


def read_parameters(text: str) -> dict[str, Any]:
    """Return `text` decoded as a JSON object; raise `ConfigError` if it is not one."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConfigError(f"--params: must be a JSON object such as '{{\"width\": 800}}': {error}") from error


async def submit(target: Target, action: str, parameters: dict[str, Any], *, queue: str | None, follow: bool) -> int:
    """Start one job of `action`, print the run's id or, with `follow`, its events.  Return the exit code.

    The id, or the result of a followed run, goes to standard output; everything else goes to standard error.
    """
    async with RunClient(target) as client:
        run_id = await client.start(action, parameters, queue)
        if not follow:
            click.echo(run_id)
            return ExitCode.DRAINED
        _print(f"run {run_id}")
        try:
            await _print_events(client, run_id)
        except asyncio.CancelledError:  # Ctrl-C
            _print(f"run {run_id} goes on: only this command ends")
            raise
        return _show_end(await client.look_up(run_id))


class RunClient:
    """Starts runs, follows them, looks them up.  Raises `SubmitError`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        headers = {"Authorization": f"Bearer {target.token}", "User-Agent": f"mobius-supervisor/{__version__}"}
        self._session = aiohttp.ClientSession(headers=headers, timeout=_TIMEOUT, request_class=ProxiedRequest)

    async def __aenter__(self) -> RunClient:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def start(self, action: str, parameters: dict[str, Any], queue: str | None) -> str:
        """Start a run of one step; return its id."""
        step = {"name": action, "action": action, "parameters": parameters}
        body: dict[str, Any] = {"mode": "inline", "spec": {"name": action, "steps": [step]}}
        if queue is not None:
            body["queue"] = queue
        run = await self._call("POST", self._target.runs_url, body)
        return str(run.get("id"))

    async def look_up(self, run_id: str) -> dict[str, Any]:
        """Return the run with its result."""
        return await self._call("GET", self._run_url(run_id))

    async def follow(self, run_id: str) -> AsyncIterator[RunEvent]:
        """Yield the events of a run until it is over; a stream that is cut is taken up where it ended."""
        since, is_over = 0, False
        while True:
            try:
                async with aclosing(self._connection(run_id, since)) as events:
                    async for event in events:
                        yield event
                        is_over = is_over or _is_end(event)
                        # The current state may carry the newest number although the history has not arrived yet.
                        since = since if event.type == "run_updated" else max(since, event.seq)
            except (aiohttp.ClientError, Unavailable) as error:
                _print(f"connection lost, trying again: {self._why(error, self._target.runs_url)}")
            if is_over:
                return
            await asyncio.sleep(_RECONNECT_AFTER)

    async def _connection(self, run_id: str, since: int) -> AsyncGenerator[RunEvent]:
        decoder = EventDecoder()
        patience: float | None = None
        url = f"{self._run_url(run_id)}/events"
        way = way_through(self._target.proxy, URL(url))
        async with self._session.get(url, params={"since": since}, allow_redirects=False, **way) as answer:
            await self._check(answer)
            while piece := await _read(answer.content, patience):
                for event in decoder.feed(piece):
                    yield event
                    patience = _END_TIMEOUT if _is_end(event) else patience

    async def _call(self, method: str, url: str, body: object = None) -> dict[str, Any]:
        try:
            way = way_through(self._target.proxy, URL(url))
            async with self._session.request(method, url, json=body, allow_redirects=False, **way) as answer:
                await self._check(answer)
                return msgspec.json.decode(await answer.read(), type=dict[str, Any])
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SubmitError(self._why(error, url), ExitCode.INTERNAL_ERROR) from error
        except (Unavailable, msgspec.DecodeError) as error:
            message = f"the server at {self._target.base_url} gives no answer of use: {error}"
            raise SubmitError(message, ExitCode.INTERNAL_ERROR) from error

    async def _check(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status in (401, 403):
            await self._refuse_key(answer)
        if answer.status == 404:
            message = f"the server at {self._target.base_url} knows no project {self._target.project!r} (404)"
            raise SubmitError(message, ExitCode.USAGE)
        if answer.status == 407:
            raise Unavailable("a proxy refuses the call (407): correct --proxy")
        if answer.status == 429 or answer.status >= 500:
            raise Unavailable(f"it answered {answer.status}")
        if 300 <= answer.status < 400 and "Location" in answer.headers:
            raise SubmitError(redirected(answer.status, answer.headers["Location"]), ExitCode.INTERNAL_ERROR)
        if answer.status >= 300:
            text = escaped((await answer.text(errors="replace"))[:500])
            raise SubmitError(f"the server refuses the run ({answer.status}): {text}", ExitCode.INTERNAL_ERROR)

    async def _refuse_key(self, answer: aiohttp.ClientResponse) -> NoReturn:
        if not schema.is_own_error(answer.headers.get("Content-Type", ""), await answer.read()):
            raise SubmitError(
                f"{URL(self._target.base_url).authority} answered {foreign_refusal(str(answer.status))}",
                ExitCode.INTERNAL_ERROR,
            )
        message = f"the server at {self._target.base_url} refuses the API key ({answer.status})"
        raise SubmitError(message, ExitCode.CREDENTIAL_REFUSED)

    def _why(self, error: Exception, url: str) -> str:
        if isinstance(error, Unavailable):
            return str(error)
        proxy = self._target.proxy
        return in_words(error, URL(url), _MAX_SILENCE, proxy.name if proxy else None)

    def _run_url(self, run_id: str) -> str:
        return f"{self._target.runs_url}/{quote(run_id, safe='')}"


async def _read(content: aiohttp.StreamReader, patience: float | None) -> bytes:
    try:
        async with asyncio.timeout(patience):
            return await content.readany()
    except TimeoutError:  # the stream is complete or the connection is dead: the caller decides how to continue
        return b""


def _is_end(event: RunEvent) -> bool:
    return event.type == "run_updated" and event.data.get("status") in _TERMINAL


async def _print_events(client: RunClient, run_id: str) -> None:
    latest = ""
    async for event in client.follow(run_id):
        line = describe(event)
        # Each heartbeat also updates a job, without a change in the printed line.
        if line and not (event.type == "job_updated" and line == latest):
            _print(line)
        latest = line if event.type == "job_updated" else latest


def describe(event: RunEvent) -> str:
    """Return the line for an event; empty for an event that is not shown."""
    data = event.data
    if event.type == "custom":
        return f"  {data.get('type')} {json.dumps(data.get('data'), ensure_ascii=False)}"
    if event.type == "job_updated":
        return f"job {data.get('id')} {data.get('status')}, attempt {data.get('attempt')}{_error_of(data)}"
    return ""


def _error_of(data: dict[str, Any]) -> str:
    texts = [str(data[key]) for key in ("error_type", "error_message", "last_error") if data.get(key)]
    return f": {': '.join(texts)}" if texts else ""


def _show_end(run: dict[str, Any]) -> int:
    # The first line is enough: the line of the job contains the rest.
    _print(f"run {run.get('id')} {run.get('status')}{_error_of(run)}".partition("\n")[0])
    if run.get("status") != "completed":
        return ExitCode.INTERNAL_ERROR
    if run.get("result_b64"):
        _write_result(_decoded_result(run["result_b64"]))
    return ExitCode.DRAINED


def _decoded_result(encoded: object) -> bytes:
    try:
        return base64.b64decode(str(encoded), validate=True)
    except ValueError as error:
        raise SubmitError(
            f"the result in the server's answer is no base64: {error}", ExitCode.INTERNAL_ERROR
        ) from error


def _write_result(result: bytes) -> None:
    """Write the raw bytes to a file or pipe; print a readable form on a terminal."""
    if sys.stdout and sys.stdout.isatty():  # Python has no stream where the descriptor was closed
        click.echo(show_result(result))
    else:
        click.echo(result, nl=False)


def show_result(result: bytes) -> str:
    """Return the form of a result for a terminal: indented JSON, or the size and kind of any other result."""
    try:
        text = json.dumps(json.loads(result), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return f"{format_size(len(result))} of {_kind_of(result)}: add > FILE to the command to save it"
    return "\n".join(map(escaped, text.split("\n")))


def _kind_of(result: bytes) -> str:
    try:
        result.decode()
    except UnicodeDecodeError:
        return "binary data"
    return "binary data" if b"\0" in result else "text that is not JSON"


def _print(text: str) -> None:
    """Print a text on standard error; indent all lines but the first, such as those of a traceback."""
    first, *more = text.split("\n")
    click.echo("\n    ".join([escaped(first), *(escaped(line) for line in more if line)]), err=True)


class RunEvent(msgspec.Struct, frozen=True):
    """One event of a run; `seq` grows, `data` depends on `type`: run_updated, job_updated, custom."""

    type: str
    seq: int = 0
    data: dict[str, Any] = {}


class EventDecoder:
    """Decodes server-sent events from chunks of any size; skips invalid events."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[RunEvent]:
        """Return the events that `piece` completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [event for line in lines if (event := self._read(line.removesuffix(b"\r"))) is not None]

    def _read(self, line: bytes) -> RunEvent | None:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        if line or not self._data:
            return None  # a comment, a field we do not need, or an empty line between two comments
        data, self._data = b"\n".join(self._data), []
        try:
            return msgspec.json.decode(data, type=RunEvent)
        except msgspec.DecodeError:
            return None
