"""Fault scripts: which faults to inject, and when.  Pure: parses and decides; `fault_injector` acts.

    seed = 7                       # of all probabilities; default 0

    [[faults]]
    call = "heartbeat"             # claim, heartbeat, events, complete, get_job, or any of these
    action = "resize"              # optional job: by action, by job_id, or claimed = 3: the third handed out
    every = 5                      # when: nth, first, every, after, probability; all given conditions must hold
    what = "status"                # the fault: one of the classes below, with its own keys
    status = 503

Each fault counts the calls that match its `call` and its job, from 1.  If several faults match a call, the first in the
list is injected.  A fault with a job condition counts a claim when it hands out a job; others count it on arrival.
"""

from __future__ import annotations

import json
import random
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

CALLS = ("claim", "heartbeat", "events", "complete", "get_job")

CallName = Literal["claim", "heartbeat", "events", "complete", "get_job", "any"]
Ordinal = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]
Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 30)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
StatusCode = Annotated[int, msgspec.Meta(ge=200, le=599)]
# The value of a header, which must not contain a line break.
HeaderText = Annotated[str, msgspec.Meta(pattern=r"\A[ -~]*\Z")]


class FaultScriptError(ValueError):
    """The script is invalid; the message begins with the place of the error.  Caught by the callers."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """A call that may get a fault.  The job of a claim is known only when it is handed out.

    `claimed` is the job's number in the order in which jobs were first handed out.
    """

    call: str
    job_id: str | None = None
    action: str | None = None
    claimed: int | None = None


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what"):
    """Conditions of a fault; the subclass defines its effect."""

    call: CallName
    action: str | None = None
    job_id: str | None = None
    claimed: Ordinal | None = None
    nth: Ordinal | None = None
    first: Ordinal | None = None
    every: Ordinal | None = None
    after: Count | None = None
    probability: Probability | None = None

    @property
    def kind(self) -> str:
        """Value of `what` in the script."""
        return str(self.__struct_config__.tag)

    @property
    def is_about_jobs(self) -> bool:
        """True if the fault needs the job of the call."""
        return (self.action, self.job_id, self.claimed) != (None, None, None)

    def fits(self, occasion: Occasion) -> bool:
        """True if the fault counts this call."""
        if self.call not in ("any", occasion.call):
            return False
        if occasion.call == "claim" and self.is_about_jobs != (occasion.job_id is not None):
            return False
        wanted = ((self.action, occasion.action), (self.job_id, occasion.job_id), (self.claimed, occasion.claimed))
        return all(ours in (None, its) for ours, its in wanted)

    def falls_on(self, count: int, chance: float) -> bool:
        """True if the fault is injected into its `count`-th call; `chance` is a random number from 0 to 1."""
        return (
            self.nth in (None, count)
            and (self.first is None or count <= self.first)
            and (self.every is None or count % self.every == 0)
            and (self.after is None or count > self.after)
            and (self.probability is None or chance < self.probability)
        )


class Status(Fault, tag="status", frozen=True, kw_only=True):
    """The call is not processed; the answer has this status.

    `retry_after` is sent unchanged; `retry_date` is sent as an HTTP date, this many seconds from now.
    """

    status: StatusCode
    retry_after: Count | HeaderText | None = None
    retry_date: Count | None = None
    body: str | None = None


class Delay(Fault, tag="delay", frozen=True, kw_only=True):
    """The call is processed after `seconds`."""

    seconds: Seconds


class Hang(Fault, tag="hang", frozen=True):
    """The call is not processed, and gets no answer until the client disconnects."""


class HangUp(Fault, tag="hang_up", frozen=True):
    """The call is not processed; the connection is aborted."""


class LoseAnswer(Fault, tag="lose_answer", frozen=True):
    """The call is processed; the connection is aborted without an answer."""


class Reset(Fault, tag="reset", frozen=True, kw_only=True):
    """The call is processed; the connection is reset after `bytes` bytes of the answer, including its head."""

    bytes: Size = 0


class Truncate(Fault, tag="truncate", frozen=True, kw_only=True):
    """The call is processed; the connection is closed normally before the last `bytes` bytes of the answer."""

    bytes: Ordinal = 1


class Slow(Fault, tag="slow", frozen=True, kw_only=True):
    """The call is processed; the answer is sent byte by byte, `seconds` apart."""

    seconds: Seconds = 0.01


class Garbage(Fault, tag="garbage", frozen=True, kw_only=True):
    """The call is processed; the answer is a proxy's HTML page, or, with `of = "http"`, not HTTP."""

    of: Literal["json", "http"] = "json"


class WrongType(Fault, tag="wrong_type", frozen=True):
    """The call is processed; every value in the answer has a wrong type."""


class Oversized(Fault, tag="oversized", frozen=True, kw_only=True):
    """The call is processed; an unknown field makes the answer longer than `bytes` bytes."""

    bytes: Size = 2 * 1024 * 1024


class ExtraFields(Fault, tag="extra_fields", frozen=True):
    """The call is processed; the answer has unknown fields."""


class ExpireLease(Fault, tag="expire_lease", frozen=True):
    """The job's lease expires just before the call is processed, or, for a claim, just before the answer."""

    @property
    def is_about_jobs(self) -> bool:
        return True


class Cancel(Fault, tag="cancel", frozen=True):
    """The job's run is cancelled just before the call is processed, or, for a claim, just before the answer."""

    @property
    def is_about_jobs(self) -> bool:
        return True


class DuplicateClaim(Fault, tag="duplicate_claim", frozen=True):
    """The job is handed out, and handed out again to the next claim."""

    @property
    def is_about_jobs(self) -> bool:
        return True


AnyFault = (
    Status
    | Delay
    | Hang
    | HangUp
    | LoseAnswer
    | Reset
    | Truncate
    | Slow
    | Garbage
    | WrongType
    | Oversized
    | ExtraFields
    | ExpireLease
    | Cancel
    | DuplicateClaim
)

KINDS = tuple(sorted(str(kind.__struct_config__.tag) for kind in AnyFault.__args__))


class FaultScript(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A list of faults, and the seed of their probabilities."""

    faults: tuple[AnyFault, ...] = ()
    seed: int = 0


class Schedule:
    """A running script, with the number of calls that each fault has counted."""

    def __init__(self, script: FaultScript) -> None:
        self._faults = script.faults
        self._counts = [0] * len(script.faults)
        # One random sequence per fault, so that faults do not influence each other.
        self._chances = [random.Random(f"{script.seed}/{number}") for number in range(len(script.faults))]

    def strike(self, occasion: Occasion) -> AnyFault | None:
        """Return the fault to inject into this call; every matching fault counts the call."""
        fitting = [number for number, fault in enumerate(self._faults) if fault.fits(occasion)]
        falling = [self._faults[number] for number in fitting if self._count(number)]
        return falling[0] if falling else None

    def _count(self, number: int) -> bool:
        self._counts[number] += 1
        return self._faults[number].falls_on(self._counts[number], self._chances[number].random())


def parse_faults(script: Mapping[str, Any]) -> FaultScript:
    """Convert decoded TOML or JSON to a script; raise `FaultScriptError`."""
    try:
        parsed = msgspec.convert(script, FaultScript)
    except msgspec.ValidationError as error:
        raise FaultScriptError(_sentence(str(error))) from error
    for number, fault in enumerate(parsed.faults):
        _check(fault, f"faults[{number}]")
    return parsed


def parse_text(text: str, *, is_json: bool) -> FaultScript:
    """Parse the text of a script; raise `FaultScriptError`."""
    try:
        script = json.loads(text) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise FaultScriptError(f"is not {'JSON' if is_json else 'TOML'}: {error}") from error
    return parse_faults(script)


def _check(fault: AnyFault, place: str) -> None:
    if isinstance(fault, DuplicateClaim) and fault.call != "claim":
        raise FaultScriptError(f"{place}.call: must be 'claim' for a duplicate_claim, not {fault.call!r}")
    if isinstance(fault, Status) and fault.retry_after is not None and fault.retry_date is not None:
        raise FaultScriptError(f"{place}.retry_date: cannot be given beside retry_after")


_SAID = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<place>.*)`)?", re.DOTALL)


def _sentence(said: str) -> str:
    """What msgspec says, with the place in front."""
    found = _SAID.fullmatch(said)
    assert found is not None
    what, place = found["what"], (found["place"] or "the script").replace("[...]", "")
    if place.endswith(".what"):
        what = f"{what}; it must be one of {', '.join(KINDS)}"
    return f"{place}: {what[:1].lower()}{what[1:]}"
