"""The program is replaced on disk while it runs: no job fails for it, and operators learn that a restart is due."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import ClientSession

import supervisor
from supervisor.devserver.app import DevServer
from tests.harness import finished_job, logged, program, start_job, zygote_of

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # the program brings its own loop; ours does not matter


def installed(folder: Path) -> Path:
    """A copy of the program that a test may replace."""
    source = Path(supervisor.__file__).parent
    shutil.copytree(source, folder / "supervisor", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "supervisor"


def replace_text(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def give_messages_another_shape(package: Path) -> None:
    """As an upgrade from a checkout does, which changes no version."""
    (file,) = [each for each in package.rglob("messages.py") if "workdir: str\n" in each.read_text()]
    replace_text(file, "    workdir: str\n", "    workdir: str\n    trace_parent: str\n")


def give_it_another_version(package: Path) -> None:
    replace_text(package / "version.py", supervisor.__version__, "99.1.2")


def give_it_a_start_that_fails(package: Path) -> None:
    """As where the zygote of the other version is started in another way."""
    give_it_another_version(package)
    (file,) = package.rglob("zygote_main.py")
    file.write_text('raise SystemExit("usage: zygote_main SOMETHING ELSE")\n')


SENTENCE = r"the program on disk is another one \(version (.*?)\) than the one that runs \(version (.*?)\): restart it"


@pytest.mark.parametrize("upgrade", [give_messages_another_shape, give_it_another_version, give_it_a_start_that_fails])
async def test_the_old_code_serves_on_until_a_zygote_is_needed_and_then_readiness_falls(
    server: DevServer, state: Path, tmp_path: Path, upgrade: Callable[[Path], None]
) -> None:
    package = installed(tmp_path / "installed")
    prefix = ["env", "-C", str(package.parent), f"PYTHONPATH={package.parent}"]
    async with (
        program(server.url, state, prefix, workers="1", listen="127.0.0.1:0", wait_seconds="1") as process,
        ClientSession() as client,
    ):
        await logged(state, '"serving"')
        upgrade(package)
        process.send_signal(signal.SIGHUP)
        await logged(state, "not reloaded")
        after_reload = [
            await finished_job(server, await start_job(server, action)) for action in ("pid", "segfault", "pid")
        ]
        (page,) = re.findall(r'"page":"(.*?)"', (state / "log").read_text())
        async with client.get(f"{page}readyz") as answer:
            ready = answer.status

        os.kill(zygote_of(process.pid), signal.SIGKILL)
        await logged(state, "no new zygote")
        after_death = await finished_job(server, await start_job(server, "pid"))
        async with client.get(f"{page}readyz") as answer:
            unready = answer.status, json.loads(await answer.text())["reason"]
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), 20)

    assert [job.status for job in (*after_reload, after_death)] == ["completed", "failed", "completed", "completed"]
    assert (ready, unready[0], code) == (200, 503, 0)
    assert re.search(f"^no child can be started: {SENTENCE}$", unready[1])
    lines = [json.loads(line) for line in (state / "log").read_text().splitlines()]
    assert all(re.search(SENTENCE, line["error"]) for line in lines if "zygote" in line["event"] and "error" in line)
