"""A host whose only way out is a proxy is served; the proxy learns nothing that is not meant for it."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from supervisor.cli.submit import RunClient, Target
from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.dialects.http.client import Account, Client
from supervisor.job import Fence, Succeeded
from supervisor.job_server import Unavailable
from supervisor.logs.redaction import Mask
from supervisor.proxy import Proxy
from supervisor.settings.proxy_source import proxy_to
from supervisor.settings.resolution import ConfigError
from tests.cable import Cable
from tests.harness import PROJECT, finished_job, logged, program, start_job

SERVER = "mobius.corp.invalid"
KEY = "mbx_the_key_of_the_tests"
BASIC = "Basic " + base64.b64encode(b"worker:s3cret/word").decode()
FENCE = Fence("w", "job_1", 1)


@pytest.mark.parametrize(
    ("base_url", "setting", "environment", "expected"),
    [
        ("https://a.example", "env", {}, None),
        ("https://a.example", "env", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://a.example", "env", {"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ("https://a.example", "env", {"HTTPS_PROXY": "http://P:1", "https_proxy": "http://q:2"}, "http://q:2"),
        ("https://a.example", "env", {"HTTPS_PROXY": "http://p:1", "https_proxy": ""}, None),
        ("https://a.example", "env", {"HTTP_PROXY": "http://p:1"}, None),
        ("https://a.example", "env", {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("http://a.example", "env", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("http://a.example", "env", {"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None),
        ("https://a.example", "off", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://a.example", "http://q:2/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "http://q:2"),
        ("http://127.0.0.1:8080", "http://q:2", {}, None),
        ("http://[::1]:8080", "env", {"HTTP_PROXY": "http://p:1"}, None),
        ("https://localhost", "http://q:2", {}, None),
    ],
)
def test_the_proxy_is_that_of_the_setting_or_of_the_environment(
    base_url: str, setting: str, environment: dict[str, str], expected: str | None
) -> None:
    proxy = proxy_to(base_url, setting, environment)

    assert (proxy.url if proxy else None) == expected


@pytest.mark.parametrize(
    ("no_proxy", "is_used"),
    [
        ("", True),
        ("*", False),
        ("b.example, a.example", False),
        (".example", False),
        ("*.example", False),
        ("A.EXAMPLE", False),
        ("xample", True),
        ("a.example:443", False),
        ("a.example:80", True),
        ("10.0.0.0/8", True),
    ],
)
def test_no_proxy_names_the_servers_that_are_reached_without(no_proxy: str, *, is_used: bool) -> None:
    environment = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": no_proxy}

    assert (proxy_to("https://a.example", "env", environment) is not None) == is_used


@pytest.mark.parametrize(("entry", "is_used"), [("10.0.0.0/8", False), ("10.1.2.3", False), ("11.0.0.0/8", True)])
def test_no_proxy_may_name_networks(entry: str, *, is_used: bool) -> None:
    proxy = proxy_to("https://10.1.2.3", "env", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": entry})

    assert (proxy is not None) == is_used


@pytest.mark.parametrize("address", ["socks5://u:pw_secret@p:1", "https://p:1", "http://", "http://p:0", "http://p/x"])
def test_what_is_no_http_proxy_is_refused_in_one_sentence_without_its_password(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^HTTPS_PROXY: must be .*; --proxy off ignores it$") as caught:
        proxy_to("https://a.example", "env", {"HTTPS_PROXY": address})

    assert "pw_secret" not in str(caught.value)


def test_the_password_is_a_secret() -> None:
    proxy = Proxy.at("http://worker:s3cret%2Fword@p:3128")
    mask = Mask(proxy.secrets)

    assert (proxy.url, proxy.name, proxy.authorization) == ("http://p:3128", "p:3128", BASIC)
    assert "s3cret" not in repr(proxy)
    assert mask(f"{proxy.password} {proxy.authorization}") == "*** Basic ***"


# On the wire


@dataclass
class Forwarder:
    """A proxy for one server, whose name it alone knows; it keeps the heads that it was sent."""

    upstream: int
    refusal: bytes = b""
    url: str = ""
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode("latin-1"))
            if self.refusal:
                writer.write(self.refusal)
                await writer.drain()
            else:
                await self._forward(head, reader, writer)
        writer.close()

    async def _forward(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.upstream)
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            back.write(head)
        ways = [asyncio.create_task(_pump(reader, back, self.heads)), asyncio.create_task(_pump(there, writer, []))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        back.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, heads: list[str]) -> None:
    while data := await source.read(65536):
        heads.append(data.decode("latin-1"))
        sink.write(data)
        await sink.drain()


@asynccontextmanager
async def forwarder(upstream: int, refusal: bytes = b"") -> AsyncIterator[Forwarder]:
    proxy = Forwarder(upstream, refusal)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = "http://{}:{}".format(*listening.sockets[0].getsockname())
    try:
        yield proxy
    finally:
        listening.close()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def client_through(base_url: str, address: str) -> Client:
    return Client(Account(base_url, PROJECT, "w", (), proxy=Proxy.at(address)), KEY)


def with_credentials(url: str) -> str:
    return url.replace("//", "//worker:s3cret%2Fword@")


async def test_a_plain_server_is_reached_through_the_proxy_with_credentials_for_it_on_every_call() -> None:
    async with (
        DevServer(DevServerSettings(journal=True)) as server,
        forwarder(port_of(server.url)) as proxy,
        client_through(f"http://{SERVER}", with_credentials(proxy.url)) as client,
    ):
        for _ in range(2):
            assert await client.claim(["echo"], wait=0) is None

    first, *more = [head for head in proxy.heads if head.startswith("POST")]
    assert first.startswith(f"POST http://{SERVER}/v1/projects/{PROJECT}/jobs/claim HTTP/1.1\r\n")
    assert len(more) == 1
    assert all(f"Proxy-Authorization: {BASIC}\r\n" in head for head in (first, *more))


async def over_tls(
    call: Callable[[str, str], Awaitable[None]], monkeypatch: pytest.MonkeyPatch, tmp: str
) -> tuple[list[str], int]:
    """What a proxy was sent when `call` reached a server behind it by TLS, and how many calls the server saw."""
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(SERVER).configure_cert(tls)
    authority.cert_pem.write_to_path(tmp)
    trusting = ssl.create_default_context(cafile=tmp)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
    async with (
        DevServer(DevServerSettings(journal=True)) as server,
        Cable(server.url, tls) as cable,
        forwarder(port_of(cable.url)) as proxy,
    ):
        await call(f"https://{SERVER}", with_credentials(proxy.url))
        return proxy.heads, len(server.calls)


async def claim_twice(base_url: str, address: str) -> None:
    async with client_through(base_url, address) as client:
        for _ in range(2):
            assert await client.claim(["echo"], wait=0) is None


async def start_a_run(base_url: str, address: str) -> None:
    async with RunClient(Target(base_url, PROJECT, KEY, Proxy.at(address))) as client:
        assert await client.start("echo", {}, None)


@pytest.mark.parametrize(("call", "count"), [(claim_twice, 2), (start_a_run, 1)])
async def test_a_server_with_tls_is_reached_by_a_tunnel_and_the_proxy_does_not_see_the_key(
    call: Callable[[str, str], Awaitable[None]], count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heads, calls = await over_tls(call, monkeypatch, f"{tmp_path}/authority.pem")

    assert calls == count
    assert heads[0].startswith(f"CONNECT {SERVER}:443 HTTP/1.1\r\n")
    assert f"Proxy-Authorization: {BASIC}\r\n" in heads[0]
    assert not [head for head in heads if KEY in head or "Bearer" in head]


NEEDS_LOGIN = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("base_url", "sentence"),
    [
        (
            f"https://{SERVER}",
            f"the proxy 127.0.0.1:PORT does not connect to {SERVER}:443: 407 Proxy",
        ),
        (f"http://{SERVER}", "a proxy refuses the call: 407; correct --proxy"),
    ],
)
async def test_a_refusal_of_the_proxy_is_no_verdict_on_a_call(base_url: str, sentence: str) -> None:
    async with (
        forwarder(0, NEEDS_LOGIN) as proxy,
        client_through(base_url, proxy.url) as client,
    ):
        for call in (client.claim(["echo"], wait=0), client.complete(FENCE, Succeeded(b"e30="))):
            with pytest.raises(Unavailable) as caught:
                await call
            assert str(caught.value).startswith(sentence.replace("PORT", str(port_of(proxy.url))))


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there_is_named(scheme: str, unused_tcp_port: int) -> None:
    address = f"127.0.0.1:{unused_tcp_port}"
    async with client_through(f"{scheme}://{SERVER}", f"http://worker:s3cret@{address}") as client:
        with pytest.raises(Unavailable, match=f"^no connection to the proxy {address}: Connection refused$"):
            await client.claim(["echo"], wait=0)


@pytest.mark.asyncio(loop_factories=["uvloop"])  # the program brings its own loop; ours does not matter
async def test_the_program_serves_through_the_proxy_of_its_environment_and_hides_its_password(
    server: DevServer, state: Path
) -> None:
    async with forwarder(port_of(server.url)) as proxy:
        prefix = ["env", f"http_proxy={with_credentials(proxy.url)}"]
        async with program(f"http://{SERVER}", state, prefix, allow_http=""):
            await logged(state, '"serving"')
            job = await finished_job(server, await start_job(server, "echo", {"text": "there and back"}))
            shown = await finished_job(server, await start_job(server, "environment"))

    log = (state / "log").read_text()
    assert (job.status, shown.status) == ("completed", "completed")
    assert f'"proxy":"127.0.0.1:{port_of(proxy.url)}"' in log
    assert "s3cret" not in log
