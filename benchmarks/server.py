"""A job server that costs next to nothing: canned answers, no checks, a process of its own.

`python -m benchmarks.server` prints its address and serves until it is terminated.  It speaks as much HTTP/1.1 as the
workers that are measured: requests with a Content-Length, one after the other on connections that stay open.  Beside
the worker protocol it answers to `/bench/…`, by which a benchmark offers jobs, gives orders and asks what happened.
All times are of CLOCK_MONOTONIC, which is the same in every process.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import deque
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvloop

from benchmarks.http_server import Call, Connection, answer

EMPTY = answer(204)
BEAT = answer(200, b'{"ok":true,"directives":{}}')
BEAT_CANCEL = answer(200, b'{"ok":true,"directives":{"should_cancel":true}}')
LOOKED_UP = answer(200, b'{"status":"claimed","attempt":1}')
UNKNOWN = answer(404)
REFUSED = answer(409, b'{"error":{"code":"stale","message":"the attempt is not yours"}}')


class Claims:
    """Jobs that wait for claims, and claims that wait for jobs."""

    def __init__(self) -> None:
        self.times: list[float] = []
        """When each job was handed out."""
        self.asked: list[float] = []
        """When each claim arrived."""
        self.offered_at = 0.0
        """When the last jobs appeared."""
        self.polls: deque[Connection] = deque()
        self._left = 0
        self._before = self._after = b""

    def offer(self, count: int, action: str, parameters: bytes, interval: float) -> None:
        """Have so many jobs claimed from now on."""
        job = {
            "run_id": "run_1",
            "workflow_name": "bench",
            "step_name": "only",
            "action": action,
            "attempt": 1,
            "queue": "default",
            "heartbeat_interval_seconds": interval,
        }
        self._after = b'",' + json.dumps(job).encode()[1:-1] + b',"parameters":' + parameters + b"}"
        job_id = b"00000000"
        body = b'{"job_id":"' + job_id + self._after
        self._before = answer(200, body).partition(job_id)[0]
        self._left += count
        self.offered_at = time.monotonic()
        while self._left and self.polls:
            self._hand_out(self.polls.popleft())

    def claim(self, connection: Connection, call: Call) -> None:
        self.asked.append(time.monotonic())
        if self._left:
            self._hand_out(connection)
            return
        wait = json.loads(call.body).get("wait_seconds", 0)
        if not wait:
            connection.reply(EMPTY)
            return
        self.polls.append(connection)
        connection.wait(wait, self._give_up)

    def _hand_out(self, connection: Connection) -> None:
        self._left -= 1
        connection.stop_waiting()
        number = len(self.times)
        self.times.append(time.monotonic())
        connection.reply(b"%b%08d%b" % (self._before, number, self._after))

    def _give_up(self, connection: Connection) -> None:
        self.polls.remove(connection)
        connection.reply(EMPTY)

    def forget(self, connection: Connection) -> None:
        """The client has hung up."""
        if connection in self.polls:
            self.polls.remove(connection)


class Server:
    """What was asked of it, and how it answers."""

    def __init__(self) -> None:
        self.delay = 0.0
        """Seconds of a round trip that are not there on loopback."""
        self.order = "go on"
        """What heartbeats are answered: `go on`, `cancel` or `refuse`."""
        self._claims = Claims()
        self._beats: list[tuple[str, float]] = []
        self._orders: list[tuple[str, float]] = []
        self._completes: list[float] = []
        self._failures: list[str] = []
        self._bytes = 0
        self._events: list[tuple[int, float]] = []
        self._done: list[tuple[int, Connection]] = []
        self._calls = {
            "claim": self._claims.claim,
            "heartbeat": self._heartbeat,
            "events": self._take_events,
            "complete": self._complete,
        }

    def heard(self, connection: Connection, call: Call) -> None:
        """One request; called by its connection."""
        if call.path.startswith("/bench/"):
            self._control(connection, call)
        elif self.delay:
            asyncio.get_running_loop().call_later(self.delay / 2, self._answer, connection, call)
        else:
            self._answer(connection, call)

    def closed(self, connection: Connection) -> None:
        self._claims.forget(connection)

    def _answer(self, connection: Connection, call: Call) -> None:
        if call.method == "POST":
            self._calls[call.path.rpartition("/")[2]](connection, call)
        else:
            connection.reply(LOOKED_UP)

    def _heartbeat(self, connection: Connection, call: Call) -> None:
        now = time.monotonic()
        job = call.path.rsplit("/", 2)[1]
        self._beats.append((job, now))
        if self.order == "go on":
            connection.reply(BEAT)
            return
        self._orders.append((job, now))
        connection.reply(BEAT_CANCEL if self.order == "cancel" else REFUSED)

    def _take_events(self, connection: Connection, call: Call) -> None:
        self._events.append((call.body.count(b'"type"'), time.monotonic()))
        connection.reply(EMPTY)

    def _complete(self, connection: Connection, call: Call) -> None:
        self._completes.append(time.monotonic())
        self._bytes += call.size
        if b'"failed"' in call.body:
            self._failures.append(call.body.decode())
        connection.reply(EMPTY)
        while self._done and len(self._completes) >= self._done[0][0]:
            self._tell(self._done.pop(0)[1])

    def _control(self, connection: Connection, call: Call) -> None:
        where = urlsplit(call.path)
        match where.path:
            case "/bench/offer":
                offer = json.loads(call.body)
                size = offer.get("parameters_size")
                parameters = json.dumps({"blob": "x" * size} if size else offer.get("parameters", {})).encode()
                self._claims.offer(offer["count"], offer["action"], parameters, offer.get("interval", 30))
                connection.reply(EMPTY)
            case "/bench/settings":
                settings = json.loads(call.body)
                self.delay = settings.get("delay", self.delay)
                self.order = settings.get("order", self.order)
                connection.reply(EMPTY)
            case "/bench/tally":
                self._tell_at(int(parse_qs(where.query).get("completes", ["0"])[0]), connection)
            case _:
                connection.reply(UNKNOWN)

    def _tell_at(self, completes: int, connection: Connection) -> None:
        if len(self._completes) >= completes:
            self._tell(connection)
        else:
            self._done = sorted([*self._done, (completes, connection)], key=lambda waiting: waiting[0])

    def _tell(self, connection: Connection) -> None:
        tally: dict[str, Any] = {
            "asked": self._claims.asked,
            "offered_at": self._claims.offered_at,
            "claims": self._claims.times,
            "open_polls": len(self._claims.polls),
            "beats": self._beats,
            "orders": self._orders,
            "events": self._events,
            "completes": self._completes,
            "failures": self._failures[:3],
            "bytes": self._bytes,
            "cpu": time.process_time(),
        }
        connection.reply(answer(200, json.dumps(tally).encode()), at_once=True)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = Server()
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=1024)
    host, port = listening.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(_serve()))
