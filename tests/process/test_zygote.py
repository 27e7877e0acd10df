"""A zygote imports the handlers and forks; whatever happens to it is told, and nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from supervisor.job import Succeeded
from supervisor.process.child import Child
from supervisor.process.reaper import Reaper
from supervisor.process.zygote import StartFailed, Zygote, ZygoteConfig, import_once, start_zygote
from tests.harness import GENEROUS, HANDLERS, is_alive, timed
from tests.hoard import hoard
from tests.process_world import Heard, module, nursery, open_descriptors, run, world


async def failure(failing: ZygoteConfig) -> str:
    """Why a zygote did not come up; nothing of it is left."""
    before = open_descriptors()
    reaper = Reaper()

    with pytest.raises(StartFailed) as caught:
        await Zygote.start(failing, reaper)

    assert not reaper._members
    assert await reaper.kill_orphans() == 0
    assert not open_descriptors() - before
    return str(caught.value)


def among_others(folder: Path, source: str) -> Path:
    """A folder of handlers with this module between two that are as they should be."""
    for name in ("before", "yonder"):
        (folder / f"{name}.py").write_text(f"from supervisor import handler\n@handler('{name}')\ndef f(): ...\n")
    return module(folder, source)


def under_test(folder: Path) -> str:
    """How that module is named."""
    return f"module 'under_test' ({folder / 'under_test.py'})"


async def test_imported_handlers_are_reported() -> None:
    async with world() as here:
        told = {known.action: known for known in here.zygote.imported.handlers}

    assert {"echo", "too-slow", "with-daemon"} <= told.keys()
    assert told["too-slow"].limits.timeout == 0.2
    assert told["echo"].file == str(HANDLERS / "outcomes.py")


async def test_a_module_that_fails_is_a_problem_and_the_others_serve(tmp_path: Path) -> None:
    module(tmp_path, "raise ValueError('no model')")
    (tmp_path / "other.py").write_text("from supervisor import handler\n@handler('other')\ndef other(): ...\n")

    async with world(tmp_path) as here:
        imported = here.zygote.imported

    assert [known.action for known in imported.handlers] == ["other"]
    assert [problem.message for problem in imported.problems] == ["ValueError: no model"]


async def test_an_import_that_never_ends_is_cut_at_its_timeout_and_named(tmp_path: Path) -> None:
    looping = nursery(among_others(tmp_path, "while True: pass"), import_timeout=1.0)

    with timed() as taken:
        why = await failure(looping)

    assert why == f"importing the handlers took longer than 1 s; it had come to {under_test(tmp_path)}"
    assert 0.9 < taken[0] < GENEROUS


@pytest.mark.parametrize(
    ("source", "end", "last"),
    [
        ("import os\nos._exit(3)", "exited with code 3", "no output"),
        ("import os\nos.write(2, b'no licence')\nos._exit(3)", "exited with code 3", "no licence"),
        ("import os\nos.closerange(3, 64)", "exited with code 1", "it has closed descriptors that are not its own"),
        ("import os\nos.closerange(0, 64)", "exited with code 1", "no output"),
        ("import os\nos.kill(os.getpid(), 9)", "was killed by SIGKILL", "no output"),
    ],
)
async def test_an_import_that_ends_the_process_is_reported_with_module_exit_and_last_output(
    tmp_path: Path, source: str, end: str, last: str
) -> None:
    why = await failure(nursery(among_others(tmp_path, source)))

    start = f"the process that imports the handlers {end} while it imported {under_test(tmp_path)}: "
    assert re.fullmatch(re.escape(start) + last, why)


async def test_a_crash_in_c_is_reported_with_its_line_in_the_module(tmp_path: Path) -> None:
    # So deep that the report is longer than what is kept of the output.
    source = """
    import ctypes
    def fall(depth):
        if depth:
            fall(depth - 1)
        else:
            ctypes.string_at(0)
    fall(95)
    """

    why = await failure(nursery(among_others(tmp_path, source)))

    assert f"was killed by SIGSEGV while it imported {under_test(tmp_path)}: Fatal Python error: Segm" in why
    assert f'; File "{tmp_path / "under_test.py"}", line 7 in fall; ' in why


FORKING = """
    import os, sys
    if os.fork() == 0 and {leaves}:
        sys.exit(0)
"""


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_process_that_a_module_forks_is_no_second_zygote(tmp_path: Path, leaves: bool) -> None:
    async with world(among_others(tmp_path, FORKING.format(leaves=leaves))) as here:
        children = [await here.child() for _ in range(3)]
        told = [await run(child, "yonder") for child in children]

        assert all(each.outcome == Succeeded(None) for each in told)
        assert not here.zygote.imported.problems
        assert not here.zygote.is_gone


async def test_an_import_that_closes_the_pipe_and_goes_on_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.process.zygote.EXIT_AFTER_CLOSE_TIMEOUT", 0.1)

    why = await failure(nursery(module(tmp_path, "import os\nos.closerange(3, 64)\nwhile True: pass")))

    assert "was killed by SIGKILL" in why


async def test_garbage_instead_of_handlers_is_a_failure(tmp_path: Path) -> None:
    source = """
    import os
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"GET / HTTP/1.1")
        except OSError:
            pass
    while True: pass
    """

    assert "was killed by SIGKILL" in await failure(nursery(module(tmp_path, source)))


@pytest.mark.parametrize("late", ["Importing('again', 'again.py')", "Imported((), ())"])
async def test_any_message_after_imported_ends_the_zygote(tmp_path: Path, late: str) -> None:
    source = f"""
    import os
    from supervisor.ipc.messages import Imported, Importing
    from supervisor.ipc.wire import encode
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, encode(Imported((), ())) + encode({late}))
        except OSError:
            pass
    while True: pass
    """

    zygote = await Zygote.start(nursery(module(tmp_path, source)), Reaper())

    async with asyncio.timeout(GENEROUS):
        assert await zygote.exited() == -signal.SIGKILL


async def test_messages_after_the_import_timeout_are_ignored(tmp_path: Path) -> None:
    source = """
    import os
    from supervisor.ipc.messages import Importing
    from supervisor.ipc.wire import encode
    [pipe] = [number for number in range(3, 64) if os.path.exists(f"/proc/self/fd/{number}")
              and os.readlink(f"/proc/self/fd/{number}").startswith("socket:")]
    while True:
        os.write(pipe, encode(Importing("under_test", "under_test.py")))
    """

    with capture_logs() as logged:
        why = await failure(nursery(module(tmp_path, source), import_timeout=0.5))

    assert why.startswith("importing the handlers took longer")
    assert logged == []


async def test_a_process_that_cannot_be_started_is_a_failure_like_others() -> None:
    too_long_for_the_kernel = nursery(PASSED="x" * 200_000)

    assert await failure(too_long_for_the_kernel) == (
        f"the process that imports the handlers could not be started: {sys.executable}: Argument list too long"
    )


async def test_an_interpreter_that_may_not_be_executed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    assert await failure(nursery()) == (
        f"the process that imports the handlers could not be started: {tmp_path}/python: Permission denied"
    )


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    before = open_descriptors()
    reaper = Reaper()
    start = asyncio.create_task(Zygote.start(nursery(module(tmp_path, "while True: pass")), reaper))
    await asyncio.sleep(0)

    start.cancel()
    await asyncio.wait([start])

    assert start.cancelled()
    assert not reaper._members
    assert not open_descriptors() - before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, -15)])
async def test_every_waiter_learns_of_the_exit(number: signal.Signals, code: int) -> None:
    async with world() as here:
        waiting = [asyncio.create_task(here.zygote.exited()) for _ in range(2)]
        await asyncio.sleep(0)

        os.kill(here.zygote.pid, number)

        async with asyncio.timeout(GENEROUS):
            assert await asyncio.gather(*waiting) == [code, code]
            assert await here.zygote.exited() == code


async def test_it_is_gone_when_it_has_exited_though_something_holds_its_end_of_the_pipe(tmp_path: Path) -> None:
    forking = """
        import os, time
        if os.fork() == 0:
            time.sleep(3600)
    """
    async with world(module(tmp_path, forking)) as here:
        os.kill(here.zygote.pid, signal.SIGKILL)

        await here.zygote.exited()

        assert here.zygote.is_gone


async def test_its_death_harms_no_job() -> None:
    async with world() as here:
        child = await here.child()

        os.kill(here.zygote.pid, signal.SIGKILL)
        await here.zygote.exited()
        told = await run(child, "echo", size=1)

        assert told.reusable


async def test_a_retired_zygote_leaves_and_its_children_go_on() -> None:
    async with world() as here:
        child = await here.child()

        async with asyncio.timeout(GENEROUS):
            await here.zygote.retire()

        assert await here.zygote.exited() == 0
        assert (await run(child, "echo")).reusable


@pytest.mark.parametrize("buried", [True, False])
async def test_a_zygote_that_is_gone_forks_nothing(buried: bool) -> None:
    async with world() as here:
        os.kill(here.zygote.pid, signal.SIGKILL)
        if buried:
            await here.zygote.exited()
        else:
            os.waitid(os.P_PID, here.zygote.pid, os.WEXITED | os.WNOWAIT)

        with pytest.raises(StartFailed, match="zygote is gone"):
            await Child.start(here.zygote, here.reaper)


async def test_a_fork_that_the_kernel_refuses_to_send_fails_at_once_and_the_zygote_lives() -> None:
    async with world() as here:
        with hoard(), capture_logs() as logged:
            for _ in range(2):
                with pytest.raises(StartFailed, match="could not be forked"):
                    await Child.start(here.zygote, here.reaper)

        assert (await here.child()).is_idle
    assert [line["log_level"] for line in logged] == ["warning"] * 2
    assert "(LimitNOFILE=)" in logged[0]["error"]


async def test_a_zygote_that_died_on_the_way_can_be_killed_and_retired() -> None:
    async with world() as here:
        os.kill(here.zygote.pid, signal.SIGKILL)
        os.waitid(os.P_PID, here.zygote.pid, os.WEXITED | os.WNOWAIT)

        async with asyncio.timeout(GENEROUS):
            await here.zygote.kill()
            await here.zygote.retire()

        assert not here.reaper._members


async def test_the_credential_and_the_rest_of_the_environment_stay_out() -> None:
    async with world(MOBIUS_API_KEY="mbx_secret", NOTIFY_SOCKET="@x", PASSED="yes", NOT_PASSED="no") as here:
        # A child has its zygote's memory; the zygote's own file is closed to all but root.
        content = Path(f"/proc/{(await here.child()).pid}/environ").read_bytes()

    environment = dict(line.split("=", 1) for line in content.decode().split("\0") if line)
    assert environment["PASSED"] == "yes"
    assert not {"MOBIUS_API_KEY", "NOTIFY_SOCKET", "NOT_PASSED"} & environment.keys()
    assert b"mbx_secret" not in content


async def test_ctrl_c_in_the_terminal_does_not_reach_it() -> None:
    async with world() as here:
        assert os.getsid(here.zygote.pid) == here.zygote.pid

        os.kill(here.zygote.pid, signal.SIGINT)

        assert (await here.child()).is_idle


async def test_files_in_the_working_directory_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "msgspec.py").write_text("raise RuntimeError('a file of the user')")
    monkeypatch.chdir(tmp_path)

    async with world(HANDLERS) as here:
        assert here.zygote.imported.handlers


async def test_modules_shared_by_handlers_are_loaded_in_every_child(tmp_path: Path) -> None:
    source = """
    import os
    from supervisor import handler
    LOADED_BY = os.getpid()
    @handler("loaded-by")
    def loaded_by() -> int:
        return LOADED_BY
    """
    async with world(module(tmp_path, source)) as here:
        told = [await run(await here.child(), "loaded-by") for _ in range(2)]

    assert told[0] == told[1]


async def test_output_of_the_zygote_belongs_to_no_job(tmp_path: Path) -> None:
    async with world(
        module(tmp_path, "print('loading')\nfrom supervisor import handler\nhandler('a')(lambda: None)")
    ) as here:
        heard = Heard()
        await run(await here.child(), "a", heard)

    assert heard.lines == []


def test_import_once_reports_the_same_and_leaves_no_process() -> None:
    imported = import_once([HANDLERS], GENEROUS, [])

    assert "echo" in {known.action for known in imported.handlers}


def test_importing_once_fails_as_a_zygote_does(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="was killed by SIGKILL"):
        import_once([module(tmp_path, "import os; os.kill(os.getpid(), 9)")], GENEROUS, [])


async def test_repr_shows_the_pid() -> None:
    async with world() as here:
        assert repr(here.zygote) == f"<Zygote pid {here.zygote.pid}>"
        assert is_alive(here.zygote.pid)


async def test_a_module_that_ends_the_process_is_left_out_whatever_the_locale(tmp_path: Path) -> None:
    folder = tmp_path / "café"
    folder.mkdir()
    (folder / "bad.py").write_text("import os; os._exit(3)")
    (folder / "good.py").write_text("from supervisor import handler\n@handler('good')\ndef f(): ...\n")
    reaper = Reaper()
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    async with asyncio.timeout(GENEROUS):
        zygote = await start_zygote(ZygoteConfig((folder,), ascii_only), reaper)
        await zygote.kill()

    [problem] = zygote.imported.problems
    assert (problem.file, zygote.actions) == (str(folder / "bad.py"), ("good",))
