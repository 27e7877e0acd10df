"""The control server: what is answered where, to whom, and how it bears clients that misbehave.  Real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest
import structlog.testing
from msgspec.structs import replace

from supervisor.control import event_stream as feed
from supervisor.control import event_stream as stream
from supervisor.control import server as reception
from supervisor.control.access import AccessDenied, AccessPolicy, TcpPolicy, UnixSocketPolicy
from supervisor.control.connection_limit import MAX_CONNECTIONS, RESERVED_CONNECTIONS
from supervisor.control.event_stream import StatusFeed
from supervisor.control.listening_socket import tcp_socket
from supervisor.control.peer import Peer, Standing
from supervisor.control.routes import ControlRoutes
from supervisor.control.server import receiving
from supervisor.settings.resolution import ConfigError
from supervisor.stats import Stats
from supervisor.status import Status
from tests.control_world import listening_at
from tests.status_world import BUSY, STATUS, Steered

TOKEN = "a token of the tests"
BY = "(uid "


@pytest.fixture
def path() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield Path(folder) / "a.sock"


@pytest.fixture
def steered() -> Steered:
    return Steered()


@pytest.fixture
def refusals() -> Iterator[list[Any]]:
    """What is logged."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def site(steered: Steered, door: AccessPolicy) -> ControlRoutes:
    return ControlRoutes(steered, Stats(), door, StatusFeed(steered))


@asynccontextmanager
async def unix(path: Path, steered: Steered) -> AsyncIterator[aiohttp.ClientSession]:
    with listening_at(path) as end:
        async with (
            receiving(end, site(steered, UnixSocketPolicy(lambda _: False))),
            aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(str(path))) as client,
        ):
            yield client


@asynccontextmanager
async def tcp(
    steered: Steered, token: str | None = None, names: tuple[str, ...] = ()
) -> AsyncIterator[aiohttp.ClientSession]:
    end = tcp_socket("127.0.0.1", 0)
    url = f"http://127.0.0.1:{end.getsockname()[1]}"
    door: AccessPolicy = TcpPolicy("127.0.0.1", token, frozenset(names))
    async with receiving(end, site(steered, door)), aiohttp.ClientSession(url) as client:
        yield client


async def text(client: aiohttp.ClientSession, method: str, target: str, **more: Any) -> tuple[int, str]:
    async with client.request(method, target, **more) as answer:
        return answer.status, (await answer.text()).strip()


def refusal(sentence: str) -> str:
    return json.dumps({"error": sentence}, separators=(",", ":"))


async def test_everything_can_be_seen(path: Path, steered: Steered) -> None:
    async with unix(path, steered) as client:
        assert await text(client, "GET", "/healthz") == (200, '{"ok":true}')
        assert await text(client, "GET", "/readyz") == (200, '{"ok":true}')
        assert json.loads((await text(client, "GET", "/status.json"))[1])["worker_id"] == "render-07"
        assert "mobius_supervisor_slots 2.0" in (await text(client, "GET", "/metrics"))[1]
        assert "render-07" in (await text(client, "GET", "/"))[1]
        assert await text(client, "GET", "/jobs/job_1/stack") == (
            200,
            '{"stack":"File \\"resize.py\\", line 3 in resize"}',
        )


async def test_an_illness_and_why_it_is_not_ready_are_told_with_503(path: Path, steered: Steered) -> None:
    steered.shown = replace(STATUS, state="draining", loop_lag=9.0)
    async with unix(path, steered) as client:
        assert await text(client, "GET", "/healthz") == (503, '{"ok":false,"reason":"the event loop was 9.0 s late"}')
        assert await text(client, "GET", "/readyz") == (503, '{"ok":false,"reason":"draining"}')


async def test_who_asks_for_something_is_told_on(path: Path, steered: Steered) -> None:
    async with unix(path, steered) as client:
        for command in ("jobs/job_1/cancel", "pause", "resume", "drain"):
            assert (await text(client, "POST", f"/{command}"))[0] == 200

    assert [what for what, _ in steered.asked] == ["cancel job_1", "pause", "resume", "drain"]
    assert all(BY in by and by.endswith("over the control socket") for _, by in steered.asked)


async def test_what_cannot_be_done_is_one_sentence(path: Path, steered: Steered) -> None:
    async with unix(path, steered) as client:
        assert await text(client, "POST", "/jobs/a%2Fb/cancel") == (409, refusal("no job 'a/b' runs here"))
        assert await text(client, "GET", "/jobs/other/stack") == (409, refusal("no job 'other' runs here"))
        assert await text(client, "POST", "/reload") == (409, refusal("resize.py:3: SyntaxError"))
        assert await text(client, "GET", "/pause") == (405, refusal("this address takes POST only"))
        assert await text(client, "GET", "/etc/passwd") == (404, refusal("there is nothing at this address"))
        assert (await text(client, "POST", "/pause", data=b"x" * 100_000))[0] == 413
    assert [what for what, _ in steered.asked] == ["reload"]


def test_another_users_process_is_not_let_in() -> None:
    with pytest.raises(AccessDenied, match="uid 12345 is neither the user of this supervisor nor root"):
        UnixSocketPolicy(lambda _: False).check_read(
            Peer(Standing.OPERATOR, 12345), {"Host": "localhost"}, is_probe=False
        )


async def test_over_tcp_one_may_look_and_no_more(steered: Steered) -> None:
    async with tcp(steered) as client:
        assert (await text(client, "GET", "/status.json"))[0] == 200
        for method, target in (("POST", "/drain"), ("POST", "/jobs/job_1/cancel"), ("GET", "/jobs/job_1/stack")):
            assert (await text(client, method, target))[0] == 403
    assert steered.asked == []


async def test_over_tcp_the_token_allows_the_rest(steered: Steered) -> None:
    async with tcp(steered, TOKEN) as client:
        for given in ({}, {"Authorization": TOKEN}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer é"}):
            assert await text(client, "POST", "/pause", headers=given) == (
                401,
                '{"error":"the token is missing or wrong"}',
            )
        assert (await text(client, "POST", "/pause", headers={"Authorization": f"Bearer {TOKEN}"}))[0] == 200
    assert steered.asked == [("pause", "a holder of the token by 127.0.0.1")]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        (f"{socket.gethostname().upper()}:9187", 200),
        ("evil.example", 421),
        (f"{socket.gethostname()}.evil.example", 421),
        ("", 421),
        ("[", 421),
    ],
)
async def test_a_name_that_is_not_ours_is_refused(steered: Steered, host: str, status: int) -> None:
    async with tcp(steered) as client:
        assert (await text(client, "GET", "/status.json", headers={"Host": host}))[0] == status


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://evil.example"}, 421),
        ({"Origin": "null"}, 421),
        ({"Host": "evil.example"}, 421),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 421),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 421),
    ],
)
async def test_a_page_from_elsewhere_has_no_power_over_a_tunnel(
    path: Path, steered: Steered, given: dict[str, str], status: int
) -> None:
    async with unix(path, steered) as client:
        assert (await text(client, "POST", "/pause", headers=given))[0] == status
        assert (await text(client, "GET", "/status.json", headers=given))[0] == status
    assert len(steered.asked) == (status == 200)


async def test_a_link_from_elsewhere_may_be_followed(steered: Steered) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    async with tcp(steered) as client:
        assert (await text(client, "GET", "/", headers=link))[0] == 200
        form = {**link, "Origin": "http://evil.example"}
        assert (await text(client, "POST", "/pause", headers=form))[0] == 421


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_an_address_that_is_taken_is_named_as_it_was_given(host: str, shown: str) -> None:
    try:
        taken = tcp_socket(host, 0)
    except ConfigError as error:
        pytest.skip(str(error))
    with taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=re.escape(f"--listen: {shown}:{port} cannot be listened on: ")):
            tcp_socket(host, port)


async def test_browsers_are_told_to_be_careful(steered: Steered) -> None:
    async with tcp(steered) as client, client.get("/") as answer:
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
        assert (await text(client, "OPTIONS", "/drain"))[0] == 405


async def test_a_watcher_is_told_at_once_what_changes_and_now_and_then_anyway(
    path: Path, steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MAX_SNAPSHOT_AGE", 0.6)
    async with unix(path, steered) as client, client.get("/events") as answer:
        assert answer.content_type == "text/event-stream"
        assert await answer.content.readuntil(b"\n\n") == b"retry: 1000\n\n"
        assert (await event(answer))["state"] == "serving"
        steered.shown = replace(STATUS, now=1001.0, state="draining")
        assert (await event(answer))["state"] == "draining"
        assert (await event(answer))["state"] == "draining"


async def event(answer: aiohttp.ClientResponse) -> Any:
    async with asyncio.timeout(5):
        assert await answer.content.readline() == b"event: status\n"
        data = await answer.content.readline()
        assert await answer.content.readline() == b"\n"
    return json.loads(data.removeprefix(b"data: "))


async def test_the_page_is_sent_what_it_shows(path: Path, steered: Steered) -> None:
    async with unix(path, steered) as client, client.get("/events?as=html") as answer:
        assert await answer.content.readuntil(b"\n\n") == b"retry: 1000\n\n"
        assert await answer.content.readline() == b"event: page\n"
        assert (await answer.content.readline()).startswith(b'data: <div id="body"')


def test_time_that_goes_by_is_no_change() -> None:
    later = replace(STATUS, now=2000.0, slots=(STATUS.slots[0], replace(BUSY, memory=7)), loop_lag=1.0)

    assert feed.without_volatile(later) == feed.without_volatile(STATUS)
    assert feed.without_volatile(replace(STATUS, slots=())) != feed.without_volatile(STATUS)


async def test_however_many_watch_what_they_see_is_rendered_once(
    path: Path, steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[Status] = []
    monkeypatch.setattr(feed, "MAX_SNAPSHOT_AGE", 60.0)
    monkeypatch.setattr(feed, "render_body", lambda status: rendered.append(status) or "")
    async with unix(path, steered) as client:
        watchers = [await client.get("/events?as=html") for _ in range(stream.MAX_SUBSCRIBERS)]
        for _ in range(2):
            for watcher in watchers:
                await watcher.content.readuntil(b"event: page\ndata: \n\n")
            steered.shown = replace(steered.shown, state="draining")
        for watcher in watchers:
            watcher.close()

    assert [status.state for status in rendered] == ["serving", "draining"]


async def test_too_many_subscribers_leave_room_for_others(path: Path, steered: Steered) -> None:
    async with unix(path, steered) as client:
        watchers = [await client.get("/events") for _ in range(stream.MAX_SUBSCRIBERS)]

        assert await text(client, "GET", "/events") == (409, refusal("there are too many watchers already"))
        assert (await text(client, "GET", "/healthz"))[0] == 200
        for watcher in watchers:
            watcher.close()


async def test_clients_that_say_nothing_hold_no_place(
    path: Path, steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "HEAD_TIMEOUT", 0.3)
    async with unix(path, steered) as client:
        silent = [await asyncio.open_unix_connection(path) for _ in range(MAX_CONNECTIONS)]
        silent[0][1].write(b"GET /status.json HTT")

        ends = [await asyncio.wait_for(reader.read(), 5) for reader, _ in silent]

        assert ends == [b""] * MAX_CONNECTIONS
        assert (await text(client, "GET", "/healthz"))[0] == 200
        for _, writer in silent:
            writer.close()


async def test_however_many_slow_clients_there_are_a_probe_is_answered_and_the_log_stays_short(
    steered: Steered, refusals: list[Any]
) -> None:
    async with tcp(steered) as client:
        port = client._base_url.port  # type: ignore[union-attr]
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3 * MAX_CONNECTIONS)]
        for _, writer in slow:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")

        assert [(await text(client, "GET", "/healthz"))[0] for _ in range(10)] == [200] * 10
        assert await asyncio.wait_for(slow[0][0].read(), 5) == b""
        for _, writer in slow:
            writer.close()

    first, last = refusals  # one at once, one with all that came later
    assert (first["event"], first["at"], first["log_level"]) == ("connections refused", "--listen", "warning")
    assert first["dropped_for_newer_ones"] == 1
    assert last["dropped_for_newer_ones"] >= 2 * MAX_CONNECTIONS - 1


async def test_a_connection_for_which_there_is_no_room_costs_no_line_of_its_own(
    path: Path, steered: Steered, refusals: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_SUBSCRIBERS", 100)
    most = MAX_CONNECTIONS + RESERVED_CONNECTIONS
    async with unix(path, steered):
        held = [await asyncio.open_unix_connection(path) for _ in range(most)]
        for reader, writer in held:
            writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)

        for _ in range(20):
            reader, writer = await asyncio.open_unix_connection(path)
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
        for _, writer in held:
            writer.close()

    assert [each["no_room"] for each in refusals] == [1, 19]


async def test_malformed_requests_cost_no_line_each(path: Path, steered: Steered, refusals: list[Any]) -> None:
    async with unix(path, steered):
        for malformed in (
            b"GET / HTTP/1.1\r\nHost: a\r\n bad\x00: x\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        ):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(malformed)
            assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.0 400 ")
            writer.close()

    assert sum(each["malformed_request"] for each in refusals) == 3
    assert len(refusals) == 2


async def test_a_bug_is_logged_with_its_traceback(path: Path, steered: Steered, refusals: list[Any]) -> None:
    steered.shown = None  # type: ignore[assignment]
    async with unix(path, steered) as client:
        assert (await text(client, "GET", "/healthz"))[0] == 500

    assert [each["event"] for each in refusals] == ["unexpected error at the control server"]
    assert refusals[0]["exc_info"]


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        ("GET /healthz HTTP/1.0", 200),
        ("GET /readyz HTTP/1.0", 200),
        ("GET /metrics HTTP/1.0", 200),
        ("GET /status.json HTTP/1.0", 421),
        ("HEAD /healthz HTTP/1.0", 200),
        ("HEAD /metrics HTTP/1.1\r\nHost: localhost", 200),
        ("HEAD /events HTTP/1.1\r\nHost: localhost", 405),
        ("HEAD /pause HTTP/1.1\r\nHost: localhost", 405),
    ],
)
async def test_the_plain_probes_of_balancers_are_answered(
    path: Path, steered: Steered, request_head: str, status: int
) -> None:
    async with unix(path, steered):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(f"{request_head}\r\n\r\n".encode())
        head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
        writer.close()

    assert head.split()[1] == str(status).encode()
    assert bool(body) == (not request_head.startswith("HEAD"))


@pytest.mark.parametrize(
    ("names", "host", "probe", "page"),
    [
        ((), "render.example", 421, 421),
        (("render.example",), "Render.Example.:9187", 200, 200),
        (("render.example",), "evil.example", 421, 421),
        (("*",), "evil.example", 200, 421),
        (("*", "render.example"), "render.example", 200, 200),
    ],
)
async def test_names_of_listen_name_are_ours_and_any_name_is_for_probes(
    steered: Steered, names: tuple[str, ...], host: str, probe: int, page: int
) -> None:
    async with tcp(steered, names=names) as client:
        asked = {"headers": {"Host": host}}
        assert [(await text(client, "GET", path, **asked))[0] for path in ("/healthz", "/readyz", "/metrics")] == [
            probe
        ] * 3
        assert (await text(client, "GET", "/", **asked))[0] == page
        from_elsewhere = {"headers": {"Host": host, "Origin": "http://elsewhere.example"}}
        assert (await text(client, "GET", "/metrics", **from_elsewhere))[0] == 421


async def test_a_watcher_that_does_not_read_is_let_go(
    path: Path, steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SEND_TIMEOUT", 0.2)
    monkeypatch.setattr(stream, "MIN_READ_INTERVAL", 0.01)
    monkeypatch.setattr(feed, "MIN_READ_INTERVAL", 0.0)
    monkeypatch.setattr(feed, "MAX_SNAPSHOT_AGE", 0.0)
    steered.shown = replace(STATUS, quarantined=("x" * 100_000,))
    async with unix(path, steered):
        with socket.socket(socket.AF_UNIX) as idle:
            idle.setblocking(False)
            await asyncio.get_running_loop().sock_connect(idle, str(path))
            idle.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for _ in range(200):  # until it is cut off: then a write fails
                await asyncio.sleep(0.05)
                try:
                    idle.send(b" ")
                except (BrokenPipeError, ConnectionResetError):
                    break
            else:
                pytest.fail("it was never let go")
