"""How one setting is asked for: on the command line, in the environment, in a file.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from supervisor.settings.value_types import ValueType

ENVIRONMENT_PREFIX = "MOBIUS_SUPERVISOR_"


@dataclass(frozen=True, slots=True)
class Option:
    """How one setting is asked for.

    `default` is what a user would have written; None where it is computed or required, which `shown_default` then says.
    `aliases` are environment names besides the one made from the option's own name, first wins.  What is fixed cannot
    change while the program runs: a reload keeps it and says so.
    """

    name: str
    kind: ValueType
    help: str
    default: str | None = None
    shown_default: str = ""
    aliases: tuple[str, ...] = ()
    is_required: bool = False
    is_fixed: bool = False

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def key(self) -> str:
        """The name under which the command line's answers are kept."""
        return self.name.replace("-", "_")

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment names, the one that wins first."""
        return (ENVIRONMENT_PREFIX + self.key.upper(), *self.aliases)


def setting(name: str, kind: ValueType, text: str, **more: Any) -> Any:
    """Return the field of `Settings` that is asked for in this way; it has no default of its own."""
    return field(metadata={"option": Option(name, kind, text, **more)})
