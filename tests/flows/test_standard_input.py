"""The key comes by standard input, as from systemd's `StandardInput=file:`: no child can find it there or elsewhere."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.exit_code import ExitCode
from supervisor.linux.syscalls import children_of
from tests.harness import GENEROUS, finished_job, logged, program, reports, result_of, start_job
from tests.somebody import UNPRIVILEGED, give_to_somebody

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # the program brings its own loop; ours does not matter

KEY = "mbx_given_by_standard_input"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    path.chmod(0o600)
    return path


@asynccontextmanager
async def given_the_key(
    server: DevServer, state: Path, key_file: Path, prefix: Sequence[str] = (), **changes: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    given = {"api_key_file": "-", "workers": "1", **changes}
    with key_file.open("rb") as stdin:
        async with program(server.url, state, prefix, stdin=stdin, **given) as process:
            yield process


@asynccontextmanager
async def demanding(key: str) -> AsyncIterator[DevServer]:
    async with DevServer(DevServerSettings(api_key=key, heartbeat_interval=1.0, lease_ttl=60, journal=True)) as server:
        yield server


def lines(state: Path, event: str) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in (state / "log").read_text().splitlines()]
    return [line for line in told if line["event"] == event]


@pytest.mark.root("only root can look at the descriptors of a process that is not dumpable")
async def test_the_supervisor_and_all_that_it_starts_have_nothing_left_to_read(state: Path, key_file: Path) -> None:
    async with demanding(KEY) as server, given_the_key(server, state, key_file) as process:
        job = await finished_job(server, await start_job(server, "descriptors"))
        family = [process.pid, *children_of(process.pid)]
        theirs = {str(Path(f"/proc/{pid}/fd/0").readlink()) for pid in family}

        assert result_of(reports(server, job.id)[0])["0"] == "/dev/null"
        assert len(family) >= 3  # a zygote and a child
        assert theirs == {"/dev/null"}


@pytest.mark.root("only root can become another user")
async def test_a_handler_finds_the_key_nowhere(state: Path, key_file: Path, somebodys_handlers: str) -> None:
    give_to_somebody(state)  # from root nothing can be kept
    wanted = {"digest": hashlib.sha256(KEY.encode()).hexdigest(), "key_file": str(key_file)}

    async with (
        demanding(KEY) as server,
        given_the_key(server, state, key_file, UNPRIVILEGED, handlers=somebodys_handlers),
    ):
        await logged(state, '"serving"')
        key_file.unlink()  # this user may read all files, as one of a service may not
        job = await finished_job(server, await start_job(server, "spy", wanted))

    came = result_of(reports(server, job.id)[0])
    assert [way for way, told in came.items() if told == "found"] == []
    assert came["own memory"] == "not there"
    for way in ("environment", "memory", "descriptors"):
        assert came[f"{way} of the parent"] == "PermissionError", way
    assert came["tracing the parent"] == "PermissionError"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_where_a_standard_stream_is_closed_the_program_ends_as_it_does_elsewhere(
    server: DevServer, state: Path, closed: str
) -> None:
    without = ("sh", "-c", f'exec "$@" {closed}', "sh")
    async with program(server.url, state, without, workers="1") as process:
        job = await finished_job(server, await start_job(server, "nothing"))
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), GENEROUS)

    assert (job.status, code) == ("completed", ExitCode.DRAINED)


@pytest.mark.root("only root can look at the descriptors of a process that is not dumpable")
async def test_a_standard_stream_that_was_closed_is_opened_on_nothing(server: DevServer, state: Path) -> None:
    without = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    async with program(server.url, state, without, workers="1") as process:
        await finished_job(server, await start_job(server, "nothing"))
        streams = {str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in range(3)}

    assert streams == {"/dev/null"}


async def test_a_reload_goes_on_with_the_same_key(state: Path, key_file: Path) -> None:
    async with demanding(KEY) as server, given_the_key(server, state, key_file) as process:
        await logged(state, '"serving"')
        key_file.write_text("mbx_another")
        process.send_signal(signal.SIGHUP)
        await logged(state, '"reloaded"')

        assert (await finished_job(server, await start_job(server, "nothing"))).status == "completed"


async def test_a_key_that_is_refused_cannot_be_read_again_and_that_is_told(state: Path, key_file: Path) -> None:
    async with demanding("mbx_another") as server, given_the_key(server, state, key_file) as process:
        code = await asyncio.wait_for(process.wait(), GENEROUS)

    (refused,) = lines(state, "the server refuses the credential")
    assert code == ExitCode.CREDENTIAL_REFUSED
    assert refused["key_from"] == "standard input, which is read at the start only"
