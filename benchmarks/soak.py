"""Everything that can go wrong, mixed, for as long as you like: `make soak`, `make soak SECONDS=60 SEED=7`.

A server with a seeded fault script and a supervisor with four workers, each a process of its own, and thousands of
short jobs: results small and big, events, failures, timeouts, crashes by signal, daemons left behind, cancellations.
Meanwhile children and zygote are killed, the supervisor is stopped for a moment, and in the first part of the run
killed and started again with the same worker id and state directory.

What is counted in the end, and must be zero:

results lost     A handler leaves a ticket as the last thing it does.  Its attempt must have a report that the server
                 accepted, or the server must have ended the attempt itself: a cancelled run, a lease that a fault let
                 run out, a lease that ran out because the supervisor was killed within four seconds of the ticket,
                 before the outcome was reported or on disk.
jobs stuck       Runs that are still active when nothing was submitted for a while.
orphans          Processes that wear the mark of one of the supervisors after the last one has ended.
descriptors      More open descriptors of the supervisor at rest than when its last process had warmed up.

The parent's memory may grow by less than 5 MiB over the last process's life after its warm-up (a straight line through
its samples, so that one big result does not count).  The exit code is 1 when any of this does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from benchmarks.machine import user
from benchmarks.soak_accounts import Accounts, settle
from benchmarks.soak_load import fault_script, next_job
from benchmarks.soak_programs import FAMILY, PATIENCE, PROJECT, Server, Supervisor
from supervisor.concurrency.helpers import shielded
from supervisor.linux.process_tag import tagged_pids

MOST_GROWTH = 5 * 1024 * 1024
TRIAL_INTERVAL = 5.0
"""Seconds between two reloads at the end, which give quarantined handlers a new trial: their jobs are not claimed."""
BACKLOG = 40
"""Runs that are active at once; in a short soak so many less that they end in time."""
KILLING_PART = 0.4
"""Part of the time in which the supervisor itself is killed; what leaks is measured in the rest."""
WARM_UP_PART = 0.25
"""Part of the measured time that does not count."""
SAMPLES_AT_REST = 10
"""So many counts of descriptors in a row, a tenth of a second apart."""
SHORT = 60.0
"""Seconds; a shorter soak leaves out faults that take half a minute each to get over."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What came out."""

    accounts: Accounts
    seconds: float
    faults: dict[str, int]
    mischief: dict[str, int]
    exit_code: int
    orphans: int
    descriptors: int
    growth: float

    @property
    def wrong(self) -> list[str]:
        """What must not be, in words."""
        found = {
            f"{len(self.accounts.lost)} results lost: {' '.join(self.accounts.lost[:5])}": self.accounts.lost,
            f"{self.accounts.stuck} jobs stuck": self.accounts.stuck,
            f"{self.orphans} orphans": self.orphans,
            f"{self.descriptors} descriptors leaked": self.descriptors > 0,
            f"the parent grew by {self.growth / 2**20:.1f} MiB": self.growth >= MOST_GROWTH,
            f"the supervisor ended with exit code {self.exit_code}": self.exit_code,
            "nothing was tried: no fault, no process killed, or no result": not self._has_tried,
        }
        return [sentence for sentence, is_so in found.items() if is_so]

    @property
    def _has_tried(self) -> bool:
        return bool(self.faults and self.mischief.get("child") and self.accounts.reported)

    def rows(self) -> dict[str, str]:
        """The figures, by name."""
        accounts = self.accounts
        return {
            "measured as": user(),
            "seconds": f"{self.seconds:.0f}",
            "jobs": f"{accounts.jobs:,}",
            "handlers finished": f"{accounts.finished:,}",
            "of them reported": f"{accounts.reported:,}",
            "of them ended by the server": f"{accounts.ended_by_server:,}",
            "of them killed with the supervisor": f"{accounts.killed:,}",
            "faults injected": f"{sum(self.faults.values()):,} ({_listed(self.faults)})",
            "processes killed or stopped": f"{sum(self.mischief.values()):,} ({_listed(self.mischief)})",
            "results lost": f"{len(accounts.lost)}",
            "jobs stuck": f"{accounts.stuck}",
            "orphan processes": f"{self.orphans}",
            "descriptors leaked": f"{max(0, self.descriptors)}",
            "parent memory growth": f"{self.growth / 2**20:.2f} MiB",
        }


@dataclass
class Soak:
    """One run of it."""

    seconds: float
    seed: int
    kills_supervisor: bool
    server: Server
    supervisor: Supervisor
    session: aiohttp.ClientSession
    tickets: Path
    mischief: dict[str, int] = field(default_factory=dict)
    samples: list[tuple[float, int]] = field(default_factory=list)

    async def run(self) -> int:
        """Soak; return how many descriptors the supervisor has more than it had in the beginning."""
        await self.supervisor.start()
        part = KILLING_PART if self.kills_supervisor else WARM_UP_PART
        with_kills = [self._kill_supervisor] if self.kills_supervisor else []
        await self._soak(part * self.seconds, self._load, self._tease, *with_kills)
        before = await self._descriptors_at_rest()
        await self._soak((1 - part) * self.seconds, self._load, self._tease, self._watch)
        return await self._descriptors_at_rest() - before

    async def _soak(self, seconds: float, *doings: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for doing in doings:
                    group.create_task(doing())
        self.supervisor.signal(signal.SIGCONT)
        await self._rest()

    async def _load(self) -> None:
        dice = random.Random(f"{self.seed} load")
        number, backlog = 0, BACKLOG if self.seconds >= SHORT else BACKLOG // 5
        while True:
            active = await self._active()
            for _ in range(backlog - len(active)):
                number += 1
                await self._post("runs", {"spec": next_job(dice, number, str(self.tickets))})
            if active and dice.random() < 0.1:
                await self._post(f"runs/{dice.choice(active)}/cancellations", {})
            await asyncio.sleep(0.1)

    async def _tease(self) -> None:
        """Kill a child now and then, the zygote less often; stop the supervisor for a moment."""
        dice = random.Random(f"{self.seed} tease")
        while True:
            await asyncio.sleep(dice.uniform(0.2, 1.5))
            what = dice.choices(("child", "zygote", "stop"), (8, 1, 1))[0]
            self._count(what)
            if what == "stop":
                self.supervisor.signal(signal.SIGSTOP)
                await asyncio.sleep(dice.uniform(0.1, 2.0))
                self.supervisor.signal(signal.SIGCONT)
            else:
                self._kill_one(dice, is_zygote=what == "zygote")

    def _kill_one(self, dice: random.Random, *, is_zygote: bool) -> None:
        family = self.supervisor.children()
        # The oldest is the zygote, until one was killed: then it may be a child that outlived its zygote.
        chosen = family[:1] if is_zygote else [dice.choice(family[1:])] if family[1:] else []
        with suppress(psutil.NoSuchProcess):
            for process in chosen:
                process.kill()

    async def _kill_supervisor(self) -> None:
        dice = random.Random(f"{self.seed} kill")
        while True:
            await asyncio.sleep(dice.uniform(0.3, 1.0) * min(20.0, KILLING_PART * self.seconds))
            self._count("supervisor")
            # To the end, whatever the time: otherwise there would be none to look at.
            await shielded(self.supervisor.kill_and_start_again())

    async def _watch(self) -> None:
        while True:
            memory, now = self.supervisor.look()
            self.samples.append((now, memory))
            await asyncio.sleep(0.5)

    async def _rest(self) -> None:
        """Wait until no run is active, or it is clear that some never will end."""
        give_up_at = time.monotonic() + max(20.0, min(90.0, self.seconds))
        reload_at = time.monotonic() + TRIAL_INTERVAL
        while await self._active() and time.monotonic() < give_up_at:
            await asyncio.sleep(0.1)
            if time.monotonic() >= reload_at:
                self.supervisor.signal(signal.SIGHUP)
                reload_at += TRIAL_INTERVAL

    async def _descriptors_at_rest(self) -> int:
        """Return the fewest in a second with all its processes: one that was killed is still being replaced."""
        counts: list[int] = []
        give_up_at = time.monotonic() + PATIENCE
        while len(counts) < SAMPLES_AT_REST and time.monotonic() < give_up_at:
            self.supervisor.look()
            count = self.supervisor.descriptors()
            counts = [*counts, count] if len(self.supervisor.children()) == FAMILY else []
            await asyncio.sleep(0.1)
        return min(counts or [self.supervisor.descriptors()])

    async def _active(self) -> list[str]:
        query = {"status": "active", "limit": "1000"}
        async with self.session.get(f"/v1/projects/{PROJECT}/runs", params=query) as response:
            return [run["id"] for run in (await response.json())["items"]]

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        async with self.session.post(f"/v1/projects/{PROJECT}/{path}", json=body) as response:
            response.raise_for_status()

    def _count(self, what: str) -> None:
        self.mischief[what] = self.mischief.get(what, 0) + 1


async def soak(seconds: float, seed: int, folder: Path, *, kills_supervisor: bool) -> Findings:
    """Run one, with all that it leaves in `folder`."""
    began = time.monotonic()
    tickets = folder / "tickets"
    tickets.mkdir()
    async with _prepared(seconds, seed, folder, tickets, kills_supervisor=kills_supervisor) as prepared:
        descriptors = await prepared.run()
        code = await prepared.supervisor.stop()
        orphans = sum(1 for mark in prepared.supervisor.marks for _ in tagged_pids(mark))
        await prepared.server.stop()
    accounts = settle(prepared.server.database, tickets, prepared.server.expired, prepared.supervisor.killed_at)
    return Findings(
        accounts=accounts,
        seconds=time.monotonic() - began,
        faults=prepared.server.tally,
        mischief=prepared.mischief,
        exit_code=code,
        orphans=orphans,
        descriptors=descriptors,
        growth=growth(prepared.samples),
    )


@asynccontextmanager
async def _prepared(
    seconds: float, seed: int, folder: Path, tickets: Path, *, kills_supervisor: bool
) -> AsyncIterator[Soak]:
    server = Server(folder)
    await server.start(fault_script(seed, patient=seconds >= SHORT))
    supervisor = Supervisor(server.url, folder)
    try:
        async with aiohttp.ClientSession(server.url, headers={"Authorization": "Bearer mbx_soak"}) as session:
            yield Soak(seconds, seed, kills_supervisor, server, supervisor, session, tickets)
    finally:
        supervisor.end()
        await server.stop()


def growth(samples: list[tuple[float, int]]) -> float:
    """By how many bytes a straight line through the samples rises, the warm-up left out."""
    counted = samples[int(len(samples) * WARM_UP_PART) :]
    if len(counted) < 2:
        return 0.0
    mean_time = sum(when for when, _ in counted) / len(counted)
    mean_size = sum(size for _, size in counted) / len(counted)
    spread = sum((when - mean_time) ** 2 for when, _ in counted)
    slope = sum((when - mean_time) * (size - mean_size) for when, size in counted) / spread
    return slope * (counted[-1][0] - counted[0][0])


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "none"


def _print(findings: Findings, *, markdown: bool) -> None:
    rows = findings.rows()
    if markdown:
        print("| | |\n|---|---|")
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"| {name} | {value} |" if markdown else f"{name:{width}}  {value}")
    for sentence in findings.wrong:
        print(f"WRONG: {sentence}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-supervisor", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--markdown", action="store_true", help="print the figures as a table for RESULTS.md")
    parser.add_argument("--folder", type=Path, help="where logs and records stay; otherwise they are removed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kills = options.kill_supervisor
        findings = asyncio.run(soak(options.seconds, options.seed, folder, kills_supervisor=kills))
    _print(findings, markdown=options.markdown)
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
