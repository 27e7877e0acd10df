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
    """The parent's share of what is resident; empty for a user who may not read it."""
    zygotes: list[float] = field(default_factory=list)
    children: list[float] = field(default_factory=list)

    def measure(self) -> None:
        _, zygote, few = _look(FEW)
        parent, _, many = _look(MANY, self.shares)
        self.parents.append(parent / MIB)
        self.zygotes.append(zygote / MIB)
        self.children.append((many - few) / (MANY - FEW) / MIB)

    def figures(self) -> list[Figure]:
        share = [Figure.of("parent (PSS)", self.shares, "MiB", at_most=45)] if self.shares else []
        return [
            *share,
            Figure.of("parent, resident, with what it shares", self.parents, "MiB"),
            Figure.of("zygote, resident", self.zygotes, "MiB"),
            Figure.of("each further child (PSS)", self.children, "MiB", at_most=3),
        ]


def _look(workers: int, shares: list[float] | None = None) -> tuple[int, int, int]:
    """Return the bytes of the parent, of the zygote, and of the zygote and all children together.

    Add the parent's share in MiB to `shares`.
    """
    with job_server() as server, supervisor(server.url, workers=workers, handlers=(HANDLERS, HEAVY)) as program:
        server.until(lambda tally: tally["open_polls"])
        family = settled_family(program.pid, workers + HELPERS)
        if shares is not None:
            with suppress(PermissionError):  # only root may read it: the parent is not dumpable
                shares.append(share_of(program.pid) / MIB)
        return memory_of(program.pid), max(map(memory_of, family)), sum(map(share_of, family))


if __name__ == "__main__":
    run_alone(Memory())
