"""Big parameters, from the server to the handler: whole, past the parent's memory, and nothing stays behind."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from supervisor.devserver.app import DevServer
from supervisor.pool import quarantine
from tests.flows.test_hostile import MEBI, claim, dispensing, peak_memory, result_text, until
from tests.harness import event, finished_job, logged, program, reports, result_of, start_job, supervising
from tests.process_world import module

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on; most of this is the whole

AGAIN = [{"max_retries": 1, "base_delay": "0s"}]


def a_text(size: int) -> str:
    """As a hostile JSON encoder would like it: full of marks and brackets."""
    piece = "".join(random.Random(size).choices('x}]{["\\ä\n', k=16 * 1024))
    return (piece * (size // len(piece) + 1))[:size]


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def memory_files() -> list[str]:
    """The files without a name that hold an answer of the server."""
    targets = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [target for target in targets if target.startswith("/memfd:answer")]


async def nothing_is_left() -> None:
    """Soon after a job is reported its slot is done with it."""
    await until(lambda: not memory_files())


async def reported(server: DevServer, run: str) -> Any:
    """The result of a run's last attempt."""
    job = await finished_job(server, run)
    assert job.status == "completed", job
    return result_of(reports(server, job.id)[-1])


async def test_parameters_of_64_mib_pass_through_without_being_held(state: Path) -> None:
    text = a_text(34 * MEBI)
    parameters = json.dumps({"text": text}).encode()  # escaped, twice as long

    async with dispensing() as dispenser, program(dispenser.url, state, workers="1") as process:
        dispenser.claims.append(claim("digest", b'{"text": "small"}', job_id="small"))
        await dispenser.until_told()
        before = peak_memory(process.pid)
        dispenser.claims.append(claim("digest", parameters, job_id="big"))
        _, report = await dispenser.until_told(2)
        grown = peak_memory(process.pid) - before

    assert len(parameters) > 64 * MEBI
    assert result_text(report) == json.dumps(digest_of(text))
    assert grown < 24 * MEBI


async def test_many_big_jobs_leave_no_file_behind(server: DevServer, state: Path) -> None:
    texts = [a_text(2 * MEBI + number) for number in range(6)]

    async with supervising(server, state, workers="3"):
        runs = [await start_job(server, "digest", {"text": text}) for text in texts]
        results = [await reported(server, run) for run in runs]
        await nothing_is_left()

    assert results == list(map(digest_of, texts))


async def test_while_a_job_runs_only_its_child_holds_its_parameters(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1"):
        run = await start_job(server, "digest-at-last", {"text": a_text(2 * MEBI)})
        await event(server, run, "working")

        assert memory_files() == []
        await server.cancel_run(run)


async def test_a_child_that_is_killed_takes_no_parameters_with_it(server: DevServer, state: Path) -> None:
    text = a_text(8 * MEBI)

    async with supervising(server, state, workers="1"):
        run = await start_job(server, "digest-at-last", {"text": text}, retry=AGAIN)
        (pid,) = (await event(server, run, "working"))["pids"]
        os.kill(pid, signal.SIGKILL)

        assert await reported(server, run) == digest_of(text)
        await nothing_is_left()


ABORTS = """
    import os
    from supervisor import handler

    @handler("aborts")
    def aborts(text: str) -> None:
        os.abort()
"""


async def test_big_parameters_of_a_job_that_is_refused_are_not_kept(
    server: DevServer, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "FIRST_PAUSE", 0.01)  # of its handler, which is left out of claims
    again = [{"max_retries": 5, "base_delay": "0s"}]
    handlers = str(module(tmp_path / "aborts", ABORTS))
    async with supervising(server, state, handlers=handlers, workers="1", wait_seconds="1"):
        job = await finished_job(server, await start_job(server, "aborts", {"text": a_text(2 * MEBI)}, retry=again))

        assert job.error_type == "Quarantined"
        await nothing_is_left()


@pytest.mark.root("only root can leave its capabilities behind")
async def test_big_parameters_arrive_though_a_handler_keeps_the_kernel_from_sending_them(
    server: DevServer, state: Path, tmp_path: Path
) -> None:
    text, enough = a_text(2 * MEBI), tmp_path / "enough"
    as_in_a_unit = ("setpriv", "--bounding-set=-sys_resource,-sys_admin", "prlimit", "--nofile=1024:1024")

    async with program(server.url, state, as_in_a_unit, workers="2", lease_ttl="5s"):
        hoarding = await start_job(server, "hoards", {"until": str(enough)})
        await event(server, hoarding, "hoarding")
        run = await start_job(server, "digest", {"text": text})
        await logged(state, "the kernel refuses to send an order, which is sent again")
        enough.touch()

        assert await reported(server, run) == digest_of(text)
        assert (await finished_job(server, hoarding)).status == "completed"
