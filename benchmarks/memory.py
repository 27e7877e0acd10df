"""What the idle program holds: the parent, and each further child beside a zygote with 100 MiB of imports."""

from __future__ import annotations

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
    parents: list[list[float]] = field(default_factory=list)
    """Resident, and the parent's share of that."""
    zygotes: list[float] = field(default_factory=list)
    children: list[float] = field(default_factory=list)

    def measure(self) -> None:
        _, zygote, few = _look(FEW)
        parent, _, many = _look(MANY)
        self.parents.append([size / MIB for size in parent])
        self.zygotes.append(zygote / MIB)
        self.children.append((many - few) / (MANY - FEW) / MIB)

    def figures(self) -> list[Figure]:
        return [
            Figure.of("parent (PSS)", [share for _, share in self.parents], "MiB", at_most=45),
            Figure.of("parent, resident, with what it shares", [resident for resident, _ in self.parents], "MiB"),
            Figure.of("zygote, resident", self.zygotes, "MiB"),
            Figure.of("each further child (PSS)", self.children, "MiB", at_most=3),
        ]


def _look(workers: int) -> tuple[tuple[int, int], int, int]:
    """Bytes of the parent (resident, and its share), of the zygote, and of the zygote and all children together."""
    with job_server() as server, supervisor(server.url, workers=workers, handlers=(HANDLERS, HEAVY)) as program:
        server.until(lambda tally: tally["open_polls"])
        family = settled_family(program.pid, workers + HELPERS)
        parent = memory_of(program.pid), share_of(program.pid)
        return parent, max(map(memory_of, family)), sum(map(share_of, family))


if __name__ == "__main__":
    run_alone(Memory())
