"""Workflow specs: structure, validation and the order of steps.  Pure.  Tested by tests/devserver/test_store.py.

Supports only sequential workflows of worker actions.  The hosted service also has fan-out, joins, signals, catch
clauses and conditions; here these are unknown fields, which are refused and never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from supervisor.devserver.errors import DeadReference, Invalid
from supervisor.devserver.retry import RetryPolicy

Name = Annotated[str, msgspec.Meta(min_length=1)]


class Edge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Reference to the next step."""

    step: Name


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One action to run; `layout` and `description` are for editors."""

    name: Name
    action: Name
    parameters: dict[str, Any] = {}
    store: Name | None = None
    next: Annotated[list[Edge], msgspec.Meta(max_length=1)] = []
    retry: list[RetryPolicy] = []
    action_kind: Literal["worker"] = "worker"
    description: str | None = None
    layout: dict[str, Any] | None = None

    @property
    def variable(self) -> str | None:
        """Name in the run's state that stores the result; None if it is not stored."""
        return None if self.store is None else self.store.removeprefix("state.")

    @property
    def max_attempts(self) -> int:
        return 1 + max((policy.max_retries for policy in self.retry), default=0)


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A declared input; an input without a default is required."""

    name: Name
    type: str
    description: str | None = None
    default: Any = msgspec.UNSET


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A value of the final state that belongs to the run's result."""

    name: Name
    variable: Name
    branch: Literal["main"] = "main"
    description: str | None = None


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The workflow of a run."""

    name: Name
    steps: Annotated[list[Step], msgspec.Meta(min_length=1)]
    start_at: Name | None = None
    inputs: list[Input] = []
    outputs: list[Output] = []
    state: dict[str, Any] = {}
    description: str | None = None

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def first(self) -> Step:
        return self.steps[0] if self.start_at is None else self.step(self.start_at)

    def after(self, name: str) -> Step | None:
        """Return the step after `name`; None at the end.  The list order applies only when no step has `next`."""
        step = self.step(name)
        if step.next:
            return self.step(step.next[0].step)
        if any(other.next for other in self.steps):
            return None
        following = self.steps.index(step) + 1
        return self.steps[following] if following < len(self.steps) else None


def check(spec: Spec) -> None:
    """Raise `Invalid` for errors that the types cannot exclude."""
    names = [step.name for step in spec.steps]
    targets = [edge.step for step in spec.steps for edge in step.next]
    if len(names) != len(set(names)):
        raise Invalid("two steps have the same name")
    for target in [*targets, *([spec.start_at] if spec.start_at else [])]:
        if target not in names:
            raise Invalid(f"there is no step {target!r}")
    for step in spec.steps:
        verify(step.parameters)


def with_defaults(spec: Spec, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a run with defaults; raise `Invalid` when a required one is missing."""
    values = {entry.name: entry.default for entry in spec.inputs} | dict(given)
    missing = sorted(name for name, value in values.items() if value is msgspec.UNSET)
    if missing:
        raise Invalid(f"missing inputs: {', '.join(missing)}")
    return values


def parameters_of(step: Step, inputs: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the step's parameters with all references replaced; raise `DeadReference` for an unresolved one."""
    scope = {"inputs": inputs, "state": state}
    return {name: resolve(value, scope) for name, value in step.parameters.items()}


def outputs_of(spec: Spec, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the declared outputs; raise `DeadReference` when one is missing in the state."""
    scope = {"state": state}
    return {output.name: look_up("state." + output.variable.removeprefix("state."), scope) for output in spec.outputs}


ROOTS = ("inputs", "state")

_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


def resolve(value: Any, scope: Mapping[str, Any]) -> Any:
    """Replace all references in `value`, at any depth."""
    match value:
        case str():
            return _resolve_text(value, scope)
        case dict():
            return {name: resolve(item, scope) for name, item in value.items()}
        case list():
            return [resolve(item, scope) for item in value]
        case _:
            return value


def look_up(path: str, scope: Mapping[str, Any]) -> Any:
    """Return the value at the dotted `path`; numbers are list indexes."""
    value: Any = scope
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise DeadReference(f"${{{path}}} leads nowhere: there is no {part!r}")
    return value


def verify(value: Any) -> None:
    """Raise `DeadReference` unless every reference in `value` begins at a known root."""
    match value:
        case str():
            for path in _REFERENCE.findall(value):
                _verify_path(path.strip())
        case dict():
            for item in value.values():
                verify(item)
        case list():
            for item in value:
                verify(item)


def _verify_path(path: str) -> None:
    root, dot, rest = path.partition(".")
    if root not in ROOTS or (dot and not rest):
        raise DeadReference(f"${{{path}}} is not a reference: it must begin with inputs. or state.")


def _resolve_text(text: str, scope: Mapping[str, Any]) -> Any:
    whole = _REFERENCE.fullmatch(text)
    if whole:
        return look_up(whole[1].strip(), scope)
    return _REFERENCE.sub(lambda found: _as_text(look_up(found[1].strip(), scope)), text)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
