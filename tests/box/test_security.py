"""The table of docs/deploy/security.md: one job tries each row, in the hardened unit and without it."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.linux import landlock, seccomp
from tests.box.installation import OPT, PATHS, Installation
from tests.handlers.attacking import ATTEMPTS
from tests.harness import KEY, PROJECT, event, finished_job, reports, result_of, start_job

DOCUMENT = Path(__file__).parents[2] / "docs" / "deploy" / "security.md"
TOKEN = "token_of_the_tests_of_the_box"
TASKS = 150
"""Processes of the unit in the box, where systemd by itself allows thousands."""
MEMORY = "Use more memory than the handler's `memory`"
FORKS = "Start processes without end"
LEFT_BEHIND = "Leave a process behind"
ROWS = {*ATTEMPTS, MEMORY}
OF_LANDLOCK = {
    "Read the file of the key",
    "Read the file of the key through `/proc/self/root`",
    "Read the file of the token",
    "Steer over TCP with the token from its file",
    "Change `oom_score_adj` of another job",
    "Read the environment of another job",
    "Trace another job",
}
OF_SECCOMP = {name for name in ROWS if re.match(r"Change the (limits|.*priority|scheduling|CPU affinity) of", name)}

pytestmark = pytest.mark.xdist_group("box of the security table")
needs_root = pytest.mark.root("only root can boot a box")


def rows() -> dict[str, tuple[str, str, str]]:
    """The cells of each row of the table, by the first one."""
    table = DOCUMENT.read_text().partition("| tried |")[2].partition("\n\n")[0]
    cells = [line.strip().strip("|").split(" | ") for line in table.splitlines()[2:]]
    return {name.strip(): (unit.strip(), bare.strip(), cause.strip()) for name, unit, bare, cause in cells}


def expected(cell: str) -> set[str]:
    """The outcomes that a cell allows: what stands in it as code."""
    return set(re.findall(r"`([^`]+)`", cell))


def test_the_table_has_a_row_for_each_attempt() -> None:
    assert set(rows()) == ROWS
    assert OF_LANDLOCK | OF_SECCOMP <= ROWS
    assert len(OF_SECCOMP) == 6


def test_each_row_states_an_outcome_in_both_columns_and_a_cause() -> None:
    assert [
        name for name, (unit, bare, cause) in rows().items() if not (expected(unit) and expected(bare) and cause)
    ] == []


def test_every_relative_link_of_the_page_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", DOCUMENT.read_text()) if "://" not in link]

    assert links
    assert [link for link in links if not (DOCUMENT.parent / link.partition("#")[0]).exists()] == []


@dataclass(frozen=True)
class Way:
    """How the program is run: the unit's name, and where its things are."""

    unit: str
    worker_id: str
    socket: str
    state: str
    key_file: str
    token_file: str
    port: int = field(default_factory=lambda: free_port())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def hardened(box: Installation, url: str) -> Way:
    """Configure the unit as it is printed, with one more credential, and fewer processes to fork."""
    credentials = "/run/credentials/mobius-supervisor.service"
    way = Way(
        "mobius-supervisor.service",
        "unit",
        "/run/mobius-supervisor/unit.sock",
        "/var/lib/mobius-supervisor",
        f"{credentials}/mobius-api-key",
        f"{credentials}/token",
    )
    box.write("/etc/mobius-supervisor/token", TOKEN, "600")
    drop_in = f"TasksMax={TASKS}\nLoadCredential=token:/etc/mobius-supervisor/token\n"
    box.configure(url, drop_in, **settings(way))
    return way


def bare(box: Installation, url: str) -> Way:
    """Configure the program as users start it: no hardening, the key in the environment, the token in the home."""
    home = "/var/lib/bare"
    way = Way("bare.service", "bare", f"{home}/run.sock", f"{home}/state", f"{home}/key", f"{home}/token")
    given = {"MOBIUS_API_KEY": KEY, "MOBIUS_BASE_URL": url, "PROJECT": PROJECT, "HOME": home, **PATHS, **settings(way)}
    given |= {"MOBIUS_SUPERVISOR_STATE_DIR": way.state, "MOBIUS_SUPERVISOR_SOCKET": way.socket}
    environment = "".join(f"Environment={name}={value}\n" for name, value in given.items())
    service = f"[Service]\nUser=daemon\nWorkingDirectory={OPT}\nExecStart={OPT}/.venv/bin/mobius-supervisor run\n"
    box.write("/etc/systemd/system/bare.service", service + environment)
    for name, text in (("key", KEY), ("token", TOKEN)):
        box.write(f"{home}/{name}", text, "600")
    box.run("chown", "-R", "daemon:", home)
    box.run("systemctl", "daemon-reload")
    return way


def settings(way: Way) -> dict[str, str]:
    return {
        "WORKER_ID": way.worker_id,
        "MOBIUS_SUPERVISOR_WORKERS": "2",
        "MOBIUS_SUPERVISOR_LEASE_TTL": "20s",  # an attack that succeeds may hold the supervisor up
        "MOBIUS_SUPERVISOR_LISTEN": f"127.0.0.1:{way.port}",
        "MOBIUS_SUPERVISOR_LISTEN_TOKEN_FILE": way.token_file,
    }


@pytest.fixture(scope="module")
def in_the_unit(box: Installation) -> Iterator[dict[str, str]]:
    yield asyncio.run(outcomes(box, hardened))
    box.forget()


@pytest.fixture(scope="module")
def without_the_unit(box: Installation) -> Iterator[dict[str, str]]:
    yield asyncio.run(outcomes(box, bare))
    box.run("systemctl", "kill", "--signal=KILL", "bare.service", check=False)


async def outcomes(box: Installation, configured: Callable[[Installation, str], Way]) -> dict[str, str]:
    """Run the program in this way, let a job try everything, and return what came of each row."""
    async with DevServer(DevServerSettings(heartbeat_interval=0.2, lease_ttl=20, journal=True)) as server:
        way = configured(box, server.url)
        await asyncio.to_thread(box.run, "systemctl", "start", way.unit)
        try:
            return await attacked(server, box, way)
        except BaseException as error:
            log = box.run("journalctl", "--no-pager", "--output=cat", f"--unit={way.unit}", check=False)
            error.add_note(log[-8000:])
            raise
        finally:
            await asyncio.to_thread(box.run, "systemctl", "kill", "--signal=KILL", way.unit, check=False)


async def attacked(server: DevServer, box: Installation, way: Way) -> dict[str, str]:
    beside = await start_job(server, "sibling")
    pid = (await event(server, beside, "working"))["pid"]
    target = await asyncio.to_thread(target_of, box, way, pid)
    guarded = await asyncio.to_thread(owners, box)

    job = await finished_job(server, await start_job(server, "attack", {"target": target}))
    came: dict[str, str] = result_of(reports(server, job.id)[0])
    greedy = await finished_job(server, await start_job(server, "allocate"))
    came[MEMORY] = reports(server, greedy.id)[0].body["error_type"]

    return came | await asyncio.to_thread(afterwards, box, way, guarded, came)


def target_of(box: Installation, way: Way, sibling: int) -> dict[str, Any]:
    main = shown(box, way, "MainPID")
    digests = [hashlib.sha256(secret.encode()).hexdigest() for secret in (KEY, TOKEN)]
    zygote = box.run("pgrep", "--oldest", "--parent", main)
    return {
        "supervisor": int(main),
        "zygote": int(zygote),
        "sibling": sibling,
        "socket": way.socket,
        "port": way.port,
        "state": way.state,
        "key_file": way.key_file,
        "token_file": way.token_file,
        "digests": digests,
    }


def afterwards(box: Installation, way: Way, guarded: str, came: dict[str, str]) -> dict[str, str]:
    """What the job cannot see itself: what its attempts led to."""
    paths = [f"{name}={value}" for name, value in PATHS.items()]
    replay = (f"{OPT}/.venv/bin/mobius-supervisor", "spool", "replay", f"--state-dir={way.state}")
    box.run("env", "HOME=/nowhere", *paths, f"MOBIUS_API_KEY={KEY}", "PROJECT=acme", *replay, check=False)
    log = box.run("journalctl", "--no-pager", "--output=cat", f"--unit={way.unit}")
    assert KEY not in log
    assert TOKEN not in log
    notified = "forged" in shown(box, way, "StatusText") or shown(box, way, "ActiveState") != "active"
    alive = box.run("pgrep", "--full", "left-behind", check=False)
    return {
        "Lead root by links in the spool to other files": "unchanged" if owners(box) == guarded else "changed",
        "Send systemd a status, a stop or a watchdog failure": "believed" if notified else "ignored",
        LEFT_BEHIND: "runs on" if alive else f"{came[LEFT_BEHIND]}, then killed",
        "Flood the log": "dropped" if "output dropped" in log or "lines of the handler dropped" in log else "logged",
    }


def shown(box: Installation, way: Way, name: str) -> str:
    return box.run("systemctl", "show", "--value", f"--property={name}", way.unit)


def owners(box: Installation) -> str:
    """Owner, mode and content of what the job's links lead to."""
    status = box.run("stat", "--format=%n %u %g %a", "/etc/shadow", "/etc/mobius-supervisor")
    return status + box.run("ls", "-ln", "/etc/mobius-supervisor") + box.run("sha256sum", "/etc/shadow")


def missing(row: str) -> str | None:
    """What this kernel lacks for a row of the unit; None when nothing."""
    version = landlock.version()
    if row.startswith("Signal") and version < landlock.WITH_SIGNALS:
        return "this kernel's Landlock knows no signals"
    if row in OF_LANDLOCK and version < landlock.WITH_REFER:
        return "this kernel's Landlock is old"
    if row in OF_SECCOMP and not seccomp.is_available():
        return "there is no seccomp filter here"
    return None


@needs_root
@pytest.mark.parametrize("row", sorted(ROWS))
def test_the_unit_holds_a_row(row: str, box: Installation, in_the_unit: dict[str, str]) -> None:
    if reason := missing(row):
        pytest.skip(reason)
    if row == FORKS and "pids" not in box.run("cat", "/sys/fs/cgroup/cgroup.controllers").split():
        pytest.skip("the box has no pids controller")
    assert in_the_unit[row] in expected(rows()[row][0])


@needs_root
@pytest.mark.parametrize("row", sorted(ROWS))
def test_a_row_is_so_without_the_unit(row: str, without_the_unit: dict[str, str]) -> None:
    assert without_the_unit[row] in expected(rows()[row][1])
