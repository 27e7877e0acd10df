"""Started from a terminal: Ctrl-Z pauses, and the end of the terminal ends the program in order."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from supervisor.devserver.app import DevServer
from supervisor.exit_code import ExitCode
from tests.harness import HANDLERS, KEY, PROJECT, event, finished_job, logged, start_job
from tests.terminal import on_a_terminal


def serving(url: str, state: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The program with a terminal of its own, and that terminal's other side; its log goes to `state/log`."""
    state.mkdir()
    arguments = ["--workers=1", f"--handlers={HANDLERS}", f"--state-dir={state}"]
    with (state / "log").open("ab") as log:
        return on_a_terminal(arguments, output=log, MOBIUS_API_KEY=KEY, MOBIUS_BASE_URL=url, PROJECT=PROJECT)


async def test_ctrl_z_pauses_and_a_hang_up_drains_however_often_it_is_told(server: DevServer, state: Path) -> None:
    process, terminal = serving(server.url, state)
    with process:
        try:
            run = await start_job(server, "shows", {"until": str(state / "go")})
            await event(server, run, "working")
            os.write(terminal, b"\x1a")
            await logged(state, '"by":"SIGTSTP"')
        finally:
            os.close(terminal)
        await logged(state, '"draining"')
        process.send_signal(signal.SIGHUP)  # as the shell does, beside the kernel
        process.send_signal(signal.SIGUSR1)
        await logged(state, '"dump"')  # so the other one was heard, too
        (state / "go").touch()

        assert (await finished_job(server, run)).status == "completed"
        assert process.wait(20) == ExitCode.DRAINED
