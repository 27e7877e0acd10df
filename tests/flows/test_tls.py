"""A server whose certificate does not verify is told nothing, is asked again with patience, and the log says why."""

from __future__ import annotations

import asyncio
import signal
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from supervisor.devserver.app import DevServer
from supervisor.exit_code import ExitCode
from tests.cable import Cable
from tests.flows.test_hostile import logged, until
from tests.harness import GENEROUS, KEY, finished_job, program, start_job, timed

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # the program runs in a process of its own

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def certified(context: ssl.SSLContext, authority: trustme.CA, host: str = "localhost", **details: Any) -> None:
    """Have a server show a certificate from its next connection on."""
    authority.issue_cert(host, **details).configure_cert(context)


def server_side() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def trusting(authority: trustme.CA, folder: Path) -> list[str]:
    """The command that runs a program which trusts an authority, and no other."""
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    return ["env", f"SSL_CERT_FILE={folder / 'authority.pem'}"]


def failed_claims(state: Path) -> list[str]:
    return [line for line in logged(state).splitlines() if "claim failed" in line]


@pytest.mark.parametrize(
    ("certificate", "sentence"),
    [
        ({}, "unable to get local issuer certificate; to trust your own CA, set SSL_CERT_FILE to"),
        ({"host": "elsewhere.example"}, "certificate is not valid for 'localhost'"),
        ({"not_after": LONG_AGO}, "certificate has expired"),
    ],
    ids=["of an unknown authority", "of another host", "expired"],
)
async def test_a_server_with_a_wrong_certificate_hears_nothing(
    server: DevServer, state: Path, tmp_path: Path, authority: trustme.CA, certificate: Any, sentence: str
) -> None:
    known = authority if certificate else trustme.CA()
    tls = server_side()
    certified(tls, authority, **certificate)

    async with Cable(server.url, tls) as cable, program(cable.url, state, trusting(known, tmp_path)) as process:
        await until(lambda: len(failed_claims(state)) >= 3)
        with timed() as taken:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(GENEROUS):
                code = await process.wait()

    assert all(f"the certificate of localhost:{cable.port} is not trusted" in line for line in failed_claims(state))
    assert all(sentence in line and "again_in" in line for line in failed_claims(state))
    assert (cable.heard, server.calls) == (b"", [])
    assert (code, taken[0] < 10) == (ExitCode.DRAINED, True)
    assert "Traceback" not in logged(state)


async def test_a_server_that_speaks_no_tls_never_sees_the_key(server: DevServer, state: Path) -> None:
    async with Cable(server.url) as cable, program(f"https://localhost:{cable.port}", state):
        await until(lambda: len(failed_claims(state)) >= 3)

    assert all(f"no TLS with localhost:{cable.port}, so nothing was sent: " in line for line in failed_claims(state))
    assert KEY.encode() not in cable.heard
    assert b"HTTP" not in cable.heard
    assert server.calls == []


async def test_jobs_are_run_as_soon_as_the_certificate_is_renewed(
    server: DevServer, state: Path, tmp_path: Path, authority: trustme.CA
) -> None:
    tls = server_side()
    certified(tls, authority, not_after=LONG_AGO)

    async with Cable(server.url, tls) as cable, program(cable.url, state, trusting(authority, tmp_path)):
        await until(lambda: failed_claims(state))
        certified(tls, authority)
        job = await finished_job(server, await start_job(server, "echo", {"text": "hello"}))

    assert (job.status, job.attempt) == ("completed", 1)
    assert KEY.encode() in cable.heard
