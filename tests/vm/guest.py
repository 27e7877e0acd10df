"""What runs in the machine: the shipped unit under systemd, jobs that run out of memory, and what became of them.

Prints what it has seen as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from supervisor.devserver.app import DevServer, DevServerSettings
from tests.harness import KEY, PROJECT, event, finished_job, is_alive, reports, result_of, start_job

ROOT = Path(__file__).parents[2]
UNIT = "mobius-supervisor.service"
UNITS = Path("/etc/systemd/system")
SETTINGS = Path("/etc/mobius-supervisor")
PATIENCE = 60.0
LISTEN = "127.0.0.1:9187"
DELEGATE = """\
[Service]
Delegate=memory pids
ProtectControlGroups=no
"""
HERE = f"""\
[Service]
WorkingDirectory=/
ExecStart=
ExecStart={sys.executable} -m supervisor run
Environment=PYTHONPATH={ROOT}
ProtectHome=no
RestartSec=100ms
MemoryMax=400M
TasksMax=200
"""


def install(url: str) -> None:
    """The shipped unit, and where things are here."""
    drop_ins = UNITS / f"{UNIT}.d"
    drop_ins.mkdir()
    SETTINGS.mkdir()
    shutil.copy(ROOT / "systemd" / UNIT, UNITS)
    (drop_ins / "delegate.conf").write_text(DELEGATE)
    (drop_ins / "here.conf").write_text(HERE)
    (SETTINGS / "api-key").write_text(KEY)
    (SETTINGS / "api-key").chmod(0o600)
    handlers = Path(__file__).parent / "handlers"
    (SETTINGS / "env").write_text(
        f"MOBIUS_BASE_URL={url}\nPROJECT={PROJECT}\n"
        f"MOBIUS_SUPERVISOR_HANDLERS={handlers}\nMOBIUS_SUPERVISOR_WORKERS=1\nMOBIUS_SUPERVISOR_LISTEN={LISTEN}\n"
    )
    for path in (Path(sys.executable), Path(sys.base_prefix), ROOT):
        for folder in path.parents:  # the unit's user must get there; only this machine's view of it is changed
            folder.chmod(folder.stat().st_mode | 0o111)


async def systemctl(*words: str) -> str:
    process = await asyncio.create_subprocess_exec("systemctl", *words, stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    return said.decode().strip()


async def show(name: str) -> str:
    return await systemctl("show", "-P", name, UNIT)


async def kill_and_restart() -> None:
    """SIGKILL to the supervisor, and wait until systemd has another one that serves.

    A job that comes earlier may be given to the dead one's open poll.
    """
    os.kill(int(await show("MainPID")), signal.SIGKILL)
    while await show("NRestarts") == "0":
        pass
    await systemctl("start", UNIT)


class Witness:
    """Has jobs run and remembers what became of them."""

    def __init__(self, server: DevServer) -> None:
        self.seen: dict[str, Any] = {}
        self._server = server

    async def see(self, name: str, action: str, **parameters: int) -> None:
        """Run a job."""
        run = await start_job(self._server, action, parameters)
        job = await finished_job(self._server, run, PATIENCE)
        body = reports(self._server, job.id)[0]
        told = {key: value for key, value in body.body.items() if key in ("status", "error_type", "error_message")}
        self.seen[name] = told if job.error_type else {"result": result_of(body)}

    async def see_processes(self, name: str, action: str, **parameters: int) -> None:
        """As `see`, and which of the processes live on that the job has told of."""
        run = await start_job(self._server, action, parameters)
        pids = (await event(self._server, run, "working"))["pids"]
        job = await finished_job(self._server, run, PATIENCE)
        body = reports(self._server, job.id)[0].body
        alive = [pid for pid in pids if is_alive(pid)]
        self.seen[name] = {"error_type": body["error_type"], "alive": alive, "message": body["error_message"]}

    async def see_metric(self, name: str, metric: str) -> None:
        """What was counted, by its last label."""
        async with ClientSession() as client, client.get(f"http://{LISTEN}/metrics") as answer:
            told = re.findall(rf'{metric}{{.*="(\w+)"}} (\d+)', await answer.text())
        self.seen[name] = Counter[str]()
        for label, count in told:
            self.seen[name][label] += int(count)

    async def see_unit(self, name: str) -> None:
        group = await show("ControlGroup")
        main = await show("MainPID")
        self.seen[name] = {
            "main": int(main),
            "restarts": int(await show("NRestarts")),
            "group": group,
            "main_is_in": Path(f"/proc/{main}/cgroup").read_text().partition("0::")[2].strip(),
            "groups": sorted(folder.name for folder in Path(f"/sys/fs/cgroup{group}").glob("*/")),
        }


async def main() -> None:
    async with DevServer(DevServerSettings(heartbeat_interval=1.0, lease_ttl=60, journal=True)) as server:
        install(server.url)
        await systemctl("daemon-reload")
        await systemctl("start", UNIT)
        witness = Witness(server)
        await witness.see("first", "where-it-is")
        await witness.see_unit("unit at first")
        await witness.see("within", "eats", megabytes=60)
        await witness.see("unbounded", "eats-freely", megabytes=200)
        await witness.see("after the bound", "where-it-is")
        await witness.see("kept", "keeps", megabytes=200)
        await witness.see("after what was kept", "eats", megabytes=60)
        await witness.see("over", "eats", megabytes=300)
        for time in ("second", "third", "fourth"):
            await witness.see(f"over for the {time} time", "eats", megabytes=300)
        await witness.see("next", "where-it-is")
        await witness.see_processes("over in a grandchild", "has-one-that-eats", megabytes=300)
        await witness.see("unit is full", "eats-freely", megabytes=900)
        await witness.see("forks", "forks-until-refused")
        await witness.see("last", "where-it-is")
        await witness.see_metric("exits", "child_exits_total")
        await witness.see_metric("outcomes", "jobs_total")
        await witness.see_unit("unit at last")
        await kill_and_restart()
        await witness.see("restarted", "where-it-is")
        await witness.see_unit("unit restarted")
        await systemctl("stop", UNIT)
        witness.seen["result"] = await show("Result")
        print(json.dumps(witness.seen))


try:
    asyncio.run(main())
finally:
    subprocess.run(
        ["journalctl", "--no-pager", "-o", "short-monotonic", "--no-hostname", "-u", UNIT],
        stdout=sys.stderr,
        check=False,
    )
