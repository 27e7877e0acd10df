"""Handlers can read none of the files and environments in which the operator's secrets are."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from supervisor.devserver.app import DevServer
from supervisor.linux import landlock
from supervisor.linux.syscalls import children_of
from tests.harness import GENEROUS, finished_job, logged, program, reports, result_of, start_job
from tests.somebody import SOMEBODY, UNPRIVILEGED, give_to_somebody

pytestmark = [
    pytest.mark.asyncio(loop_factories=["uvloop"]),  # the program brings its own loop; ours does not matter
    pytest.mark.skipif(landlock.version() < landlock.WITH_REFER, reason="this kernel has no Landlock"),
    pytest.mark.root("only root can make a folder that the program's user cannot write to"),
]

READS = """
from supervisor import handler

@handler("reads")
def reads(paths: list[str]) -> dict[str, str]:
    found = {}
    for path in paths:
        try:
            found[path] = open(path, "rb").read().decode()
        except OSError as error:
            found[path] = type(error).__name__
    return found
"""


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder whose parents are root's alone, as /etc is."""
    with TemporaryDirectory(dir="/run") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def test_a_job_reads_neither_the_token_nor_a_credential_nor_the_environment_of_a_wrapper(
    server: DevServer, state: Path, closed: Path
) -> None:
    (closed / "handlers").mkdir(mode=0o755)
    (closed / "handlers" / "reads.py").write_text(READS)
    (closed / "credentials").mkdir()
    token, credential, beside = closed / "token", closed / "credentials" / "other", closed / "beside"
    for path in (token, credential, beside):
        path.write_text(f"the text of {path.name}, for the tests".replace(" ", "-"))
        os.chown(path, SOMEBODY, SOMEBODY)
        path.chmod(0o600)
    give_to_somebody(state)
    wrapper = (*UNPRIVILEGED, "sh", "-c", 'CREDENTIALS_DIRECTORY=$0 "$@"; exit $?', str(closed / "credentials"))
    given = {"handlers": str(closed / "handlers"), "listen": "127.0.0.1:0", "listen_token_file": str(token)}

    async with program(server.url, state, wrapper, workers="1", **given) as process:
        await logged(state, '"serving"')
        environment = f"/proc/{process.pid}/environ"
        paths = [*map(str, (token, credential, beside)), environment]
        job = await finished_job(server, await start_job(server, "reads", {"paths": paths}))
        warnings = [line for line in (state / "log").read_text().splitlines() if "above the supervisor" in line]
        os.kill(children_of(process.pid)[0], signal.SIGTERM)
        await asyncio.wait_for(process.wait(), GENEROUS)

    found = result_of(reports(server, job.id)[0])
    assert found == {
        str(token): "PermissionError",
        str(credential): "PermissionError",
        str(beside): "the-text-of-beside,-for-the-tests",
        environment: "PermissionError",
    }
    assert len(warnings) == 1
    assert f'"pid":{process.pid},"name":"sh"' in warnings[0]
