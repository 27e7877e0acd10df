"""What the idle program holds: the parent, and each further child beside a zygote with 100 MiB of imports."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from benchmarks.figures import Figure, run_alone
from benchmarks.processes import HELPERS, MIB, memory_of, settled_family, share_of
from benchmarks.programs import HANDLERS, job_server, supervisor

FEW, MANY = 2, 10
HEAVY = HANDLERS.with_name("heavy_handlers")


@dataclass
class Memory:
    """The program with few children and with many: the difference is theirs."""

    title: str = "Memory, idle"
    rounds: int = 3
    parents: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    """The parent's share of what is resident; empty for a user who may not read it, as `children` is."""
    zygotes: list[float] = field(default_factory=list)
    children: list[float] = field(default_factory=list)

    def measure(self) -> None:
        few, many = _look(FEW), _look(MANY)
        self.parents.append(many.parent / MIB)
        self.zygotes.append(few.zygote / MIB)
        if few.shares is not None and many.shares is not None:
            self.shares.append(many.shares[0] / MIB)
            self.children.append((sum(many.shares[1:]) - sum(few.shares[1:])) / (MANY - FEW) / MIB)

    def figures(self) -> list[Figure]:
        resident = [
            Figure.of("parent, resident, with what it shares", self.parents, "MiB"),
            Figure.of("zygote, resident", self.zygotes, "MiB"),
        ]
        if not self.shares:
            return resident
        return [
            Figure.of("parent (PSS)", self.shares, "MiB", at_most=45),
            *resident,
            Figure.of("each further child (PSS)", self.children, "MiB", at_most=3),
        ]


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Bytes: resident of the parent and of the zygote, and the shares of the parent, the zygote and all children."""

    parent: int
    zygote: int
    shares: list[int] | None


def _look(workers: int) -> _Sizes:
    with job_server() as server, supervisor(server.url, workers=workers, handlers=(HANDLERS, HEAVY)) as program:
        server.until(lambda tally: tally["open_polls"])
        family = settled_family(program.pid, workers + HELPERS)
        shares = None
        with suppress(PermissionError):  # only root may read it: parent and zygote are not dumpable
            shares = [share_of(pid) for pid in (program.pid, *family)]
        return _Sizes(memory_of(program.pid), max(map(memory_of, family)), shares)


if __name__ == "__main__":
    run_alone(Memory())
