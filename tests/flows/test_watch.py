"""`--watch` and `dev`: a handler that is saved is served; one Ctrl-C ends everything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import pytest

from supervisor.cli import dev
from supervisor.devserver.app import DevServer
from supervisor.exit_code import ExitCode
from supervisor.service.handler_watch import HandlerWatch
from supervisor.settings.loader import require_watchfiles
from supervisor.settings.resolution import ConfigError
from tests.harness import (
    GENEROUS,
    PROJECT,
    finished_job,
    is_alive,
    logged,
    program,
    reports,
    result_of,
    start_job,
    started,
)

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on

HANDLER = """
import time
from supervisor import Context, handler

@handler("tells")
def tells() -> str:
    return "VERSION"

@handler("works")
def works(context: Context) -> None:
    context.log.info("at work")
    time.sleep(600)
"""


def write(folder: Path, version: str) -> None:
    (folder / "tells.py").write_text(HANDLER.replace("VERSION", version))


@pytest.fixture
def handlers(tmp_path: Path) -> Path:
    folder = tmp_path / "handlers"
    folder.mkdir()
    write(folder, "old")
    return folder


@pytest.fixture(autouse=True)
def _own_places(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with TemporaryDirectory() as folder:  # a path with room for a socket in it
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setenv("XDG_STATE_HOME", folder)
        yield


async def test_a_change_of_a_handler_is_a_reload(
    server: DevServer, state: Path, handlers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBIUS_SUPERVISOR_WATCH", "1")
    async with program(server.url, state, handlers=str(handlers)):
        await logged(state, '"serving"')
        write(handlers, "new")
        await logged(state, '"reloaded"')
        job = await finished_job(server, await start_job(server, "tells"))

        assert result_of(reports(server, job.id)[0]) == "new"
        assert '"by":"a change of tells.py"' in (state / "log").read_text()


async def test_after_a_reload_the_folders_of_the_new_settings_are_watched(
    server: DevServer, state: Path, handlers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBIUS_SUPERVISOR_WATCH", "1")
    other = handlers.with_name("other")
    other.mkdir()
    write(other, "of another folder")
    settings = handlers.with_name("settings.toml")
    settings.write_text(f"handlers = '{handlers}'")
    async with program(server.url, state, handlers=None, config=str(settings)) as process:
        await logged(state, '"serving"')
        settings.write_text(f"handlers = '{other}'")
        process.send_signal(signal.SIGHUP)
        await logged(state, '"reloaded"')
        write(handlers, "of a folder that is none of ours any more")
        # Nothing tells since when it is watched.
        while '"generation":3' not in (state / "log").read_text():
            write(other, "new")
            await asyncio.sleep(1.0)
        job = await finished_job(server, await start_job(server, "tells"))

        assert result_of(reports(server, job.id)[0]) == "new"


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """Two releases, and the link `current` to the first."""
    for release in ("1", "2"):
        (tmp_path / release / "handlers").mkdir(parents=True)
        write(tmp_path / release / "handlers", f"of release {release}")
    (tmp_path / "current").symlink_to("1")
    return tmp_path


def switch(releases: Path) -> None:
    """Have `current` lead to the second release, in one step as `mv -T` does it."""
    (releases / "next").symlink_to("2")
    (releases / "next").rename(releases / "current")


async def served(server: DevServer) -> object:
    """What the handler returns that is served now."""
    job = await finished_job(server, await start_job(server, "tells"))
    return result_of(reports(server, job.id)[0])


async def test_a_release_that_is_switched_by_a_link_is_served_and_watched(
    server: DevServer, state: Path, releases: Path
) -> None:
    async with program(server.url, state, handlers=str(releases / "current" / "handlers"), watch=""):
        await logged(state, '"serving"')
        switch(releases)
        await logged(state, '"generation":2')
        after_the_switch = await served(server)
        # Nothing tells since when the new folder is watched.
        while '"generation":3' not in (state / "log").read_text():
            write(releases / "2" / "handlers", "edited")
            await asyncio.sleep(1.0)

        assert (after_the_switch, await served(server)) == ("of release 2", "edited")
        assert f'"by":"another folder at {releases}/current/handlers"' in (state / "log").read_text()


async def test_a_reload_takes_relative_paths_from_the_folder_that_the_user_named(
    server: DevServer, state: Path, releases: Path
) -> None:
    for release in ("1", "2"):
        (releases / release / "lib").mkdir()
        (releases / release / "lib" / "libtold.py").write_text(f"VERSION = 'library {release}'")
        (releases / release / "data").write_text(f"data {release}")
        (releases / release / "handlers" / "told.py").write_text(RELATIVE)
        (releases / release / "settings.toml").write_text(f"threads = {release}")
        (releases / release / "key").write_text("mbx_local")
    options = ("--base-url", server.url, "--project", PROJECT, "--state-dir", str(state), "--workers", "1")
    relative = ("--config", "settings.toml", "--api-key-file", "key")
    command = (sys.executable, "-m", "supervisor", *options, *relative)
    place = {"PWD": str(releases / "current"), "PYTHONPATH": f"lib:{os.environ.get('PYTHONPATH', '')}"}
    state.mkdir()
    async with started(command, log=state / "log", environment=place, folder=releases / "current") as process:
        await logged(state, '"serving"')
        switch(releases)
        (releases / "1" / "key").unlink()
        (releases / "1" / "settings.toml").unlink()
        process.send_signal(signal.SIGHUP)
        await logged(state, '"generation":2')

        assert await served(server) == "of release 2"
        job = await finished_job(server, await start_job(server, "told"))
        assert result_of(reports(server, job.id)[0]) == ["library 2", "data 2", "2"]


RELATIVE = """
import os
import libtold
from pathlib import Path
from supervisor import handler

DATA = Path("data").read_text()

@handler("told")
def told() -> list[str]:
    return [libtold.VERSION, DATA, os.environ["OMP_NUM_THREADS"]]
"""

# In a namespace of users the limit is its own (namespaces(7), /proc/sys/user): no other program has less for it.
WITHOUT_INOTIFY = ("unshare", "--user", "--map-root-user", "sh", "-c")
WITHOUT_INOTIFY += ('echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"', "sh")


async def test_folders_that_are_named_again_at_once_are_watched_on(handlers: Path, tmp_path: Path) -> None:
    changes = asyncio.Queue[str]()
    watch = HandlerWatch([handlers])
    running = asyncio.create_task(watch.run(changes.put_nowait))
    await asyncio.sleep(0)  # it looks where the folders are
    watch.use([tmp_path])
    watch.use([handlers])

    async with asyncio.timeout(GENEROUS):
        while changes.empty():
            write(handlers, "2")
            await asyncio.sleep(0.1)

    running.cancel()
    await asyncio.wait([running])
    assert "a change of" in changes.get_nowait()


def has_namespaces() -> bool:
    """Whether this user may have a namespace of users."""
    with contextlib.suppress(OSError):
        return subprocess.run([*WITHOUT_INOTIFY, "true"], capture_output=True, check=False).returncode == 0
    return False


async def test_without_inotify_it_serves_and_says_once_that_nothing_is_watched(
    server: DevServer, state: Path, handlers: Path
) -> None:
    if not has_namespaces():
        pytest.skip("this user can have no namespace of users")
    async with program(server.url, state, WITHOUT_INOTIFY, handlers=str(handlers), watch="") as process:
        await logged(state, '"handlers are not watched"')
        await logged(state, '"serving"')
        assert await served(server) == "old"
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    log = (state / "log").read_text()
    assert log.count("fs.inotify.max_user_instances") == 1
    assert "Traceback" not in log


async def test_without_the_package_nothing_can_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(ConfigError, match=r"pip install 'mobius-supervisor\[watch\]'"):
        require_watchfiles()


@pytest.fixture
def _no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every interpreter that is started is without the package that watches files."""
    folder = tmp_path / "no_package"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['watchfiles'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


@pytest.mark.usefixtures("_no_package")
async def test_who_asks_to_watch_without_the_package_is_refused(server: DevServer, state: Path, handlers: Path) -> None:
    async with program(server.url, state, handlers=str(handlers), watch="") as process:
        assert await process.wait() == 2

    assert (state / "log").read_text() == (
        "Error: --watch needs the package watchfiles: pip install 'mobius-supervisor[watch]'\n"
    )


@asynccontextmanager
async def developing(folder: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`dev` in `folder`, with its log in `folder/log`."""
    command = (sys.executable, "-m", "supervisor", "dev", "--port", "0", "--workers", "1", *options)
    production = {"MOBIUS_BASE_URL": "https://mobius.example", "MOBIUS_API_KEY": "mbx_of_production"}
    async with started(command, log=folder / "log", environment=production, folder=folder) as process:
        yield process


async def submit(folder: Path, action: str, *options: str) -> str:
    """What `submit` prints."""
    (url,) = re.findall(r"development server on (\S+);", (folder / "log").read_text())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "supervisor", "submit", action, *options),
        env={**os.environ, "MOBIUS_BASE_URL": url, "PROJECT": dev.PROJECT, "MOBIUS_API_KEY": dev.KEY},
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    return told.decode()


async def test_dev_serves_what_is_saved_and_its_log_states_what_each_ctrl_c_does(handlers: Path) -> None:
    folder = handlers.parent
    async with developing(folder) as process:
        await logged(folder, '"serving"')
        assert "old" in await submit(folder, "tells", "--follow")
        write(handlers, "new")
        await logged(folder, '"reloaded"')
        assert "new" in await submit(folder, "tells", "--follow")
        await submit(folder, "works")
        await logged(folder, "at work")
        (pid,) = re.findall(r'"event":"at work".*"pid":(\d+)', (folder / "log").read_text())
        process.send_signal(signal.SIGINT)
        await logged(folder, "finishing the jobs that run; once more: stop them")
        await logged(folder, '"draining"')
        assert is_alive(int(pid))
        assert "stopping the jobs" not in (folder / "log").read_text()
        process.send_signal(signal.SIGINT)

        assert await process.wait() == ExitCode.JOBS_CUT
        assert not is_alive(int(pid))
    assert re.search(r'"event":"stopped".*"code":6', (folder / "log").read_text())


@pytest.mark.usefixtures("_no_package")
async def test_dev_without_the_package_serves_and_says_once_what_reloads_need(handlers: Path) -> None:
    folder = handlers.parent
    async with developing(folder) as process:
        await logged(folder, '"serving"')
        assert "old" in await submit(folder, "tells", "--follow")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0

    [warning] = [line for line in (folder / "log").read_text().splitlines() if "watch" in line]
    assert '"level":"warning"' in warning
    assert "handlers are not reloaded when they change" in warning
    assert "pip install 'mobius-supervisor[watch]'" in warning


async def test_dev_has_a_page_and_the_commands_find_it(handlers: Path) -> None:
    folder = handlers.parent
    async with developing(folder) as process:
        await logged(folder, '"serving"')
        (page,) = re.findall(r'"page":"(http://\S+?)"', (folder / "log").read_text())
        async with aiohttp.ClientSession() as client, client.get(page) as answer:
            assert "0 of 1 busy" in await answer.text()
        status = await asyncio.create_subprocess_exec(sys.executable, "-m", "supervisor", "status", stdout=PIPE)
        told, _ = await status.communicate()
        assert b"serving" in told
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def test_dev_says_what_is_wrong_in_one_sentence(tmp_path: Path) -> None:
    async with developing(tmp_path, "--handlers", "nowhere") as process:
        assert await process.wait() == 2

    assert (tmp_path / "log").read_text() == "Error: --handlers: there is no folder 'nowhere'\n"
