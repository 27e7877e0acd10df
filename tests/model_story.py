"""What happens to one attempt, made up beforehand: by the server, the network, the child, the disk and the machine.

A story is data.  What it does not tell goes well and at once, so every story comes to an end.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from hypothesis import strategies as st

INTERVAL = 4.0
"""Seconds between two heartbeats."""


class Turn(enum.Enum):
    """What becomes of one call."""

    FINE = enum.auto()
    REQUEST_LOST = enum.auto()
    ANSWER_LOST = enum.auto()
    BROKEN = enum.auto()  # 5xx, nothing was done
    BROKEN_AFTERWARDS = enum.auto()  # 5xx, but it was done
    LIMITED = enum.auto()  # 429
    TWICE = enum.auto()  # a proxy has repeated the request
    REJECTED = enum.auto()  # 400, heartbeats only: events and outcomes are refused for what they are
    TAKEN_AWAY = enum.auto()  # 409: from now on the job is somebody else's


@dataclass(frozen=True)
class Fate:
    """One call: how long the request and its answer are under way, and what becomes of it."""

    turn: Turn = Turn.FINE
    there: float = 0.0
    back: float = 0.0
    wait: float = 0.0
    """Seconds: `Retry-After`, or how long a proxy takes to repeat the request."""


class Ends(enum.Enum):
    """How a handler ends if it is left alone."""

    SUCCEEDED = enum.auto()
    SUCCEEDED_WITH_BLOB = enum.auto()
    FAILED = enum.auto()
    CRASHED = enum.auto()
    HANGS = enum.auto()


class OnTerminate(enum.Enum):
    """What a handler does about SIGTERM."""

    STOPS = enum.auto()
    SUCCEEDS = enum.auto()
    IGNORES = enum.auto()


class Moment(enum.Enum):
    """Something that happens to most attempts."""

    CLAIM = enum.auto()
    ANSWER = enum.auto()
    CANCEL = enum.auto()


@dataclass(frozen=True)
class ChildStory:
    emits_after: tuple[float, ...]
    progress: frozenset[int]
    """Which of the events count no longer once there is a newer one of them."""
    refused_events: frozenset[int]
    """Which of the events the server answers with 400."""
    ends: Ends
    ends_after: float
    on_terminate: OnTerminate
    stops_after: float
    dies_after: float
    """Seconds from SIGKILL to its last trace."""
    is_reusable: bool


@dataclass(frozen=True)
class ServerStory:
    heartbeats: tuple[Fate, ...]
    events: tuple[Fate, ...]
    completes: tuple[Fate, ...]
    lookups: tuple[Fate, ...]
    cancels_after: float | None
    time_to_live: float
    tells_time_to_live: bool
    takes_away_when_silent: bool
    rejects_result: int | None
    """The status with which every result is refused."""
    answers_duplicates: bool
    """Whether a report that is sent again is accepted again, or refused."""


@dataclass(frozen=True)
class Story:
    server: ServerStory
    child: ChildStory
    suspends: tuple[tuple[float, float], ...]
    """After how many seconds of running the machine is suspended, and for how long."""
    shutdown_after: float | None
    disk_delays: tuple[float, ...]
    disk_is_full: bool
    crashes_at: int | None
    """The step in which the supervisor is killed."""
    crashes_after: Moment
    """From when on the steps are counted."""
    spool_after: float
    is_idempotent: bool
    timeout: float | None
    grace: float


def _seconds(longest: float) -> st.SearchStrategy[float]:
    """Mostly round numbers, so that different things fall on the same instant."""
    return st.sampled_from([0.0, 0.0, 0.25, 1.0, longest / 2, longest]).filter(lambda each: each <= longest)


def _fates(*special: Turn, longest: int) -> st.SearchStrategy[tuple[Fate, ...]]:
    bad = (Turn.REQUEST_LOST, Turn.ANSWER_LOST, Turn.BROKEN, Turn.BROKEN_AFTERWARDS, Turn.LIMITED, Turn.TWICE, *special)
    turns = st.one_of(st.just(Turn.FINE), st.sampled_from(bad))
    return st.lists(st.builds(Fate, turns, _seconds(3.0), _seconds(3.0), _seconds(6.0)), max_size=longest).map(tuple)


def _sometimes(strategy: st.SearchStrategy[float]) -> st.SearchStrategy[float | None]:
    return st.one_of(st.none(), st.none(), strategy)


SERVERS = st.builds(
    ServerStory,
    heartbeats=_fates(Turn.REJECTED, Turn.TAKEN_AWAY, longest=10),
    events=_fates(Turn.TAKEN_AWAY, longest=8),
    completes=_fates(Turn.TAKEN_AWAY, longest=8),
    lookups=_fates(longest=3),
    cancels_after=_sometimes(_seconds(24.0)),
    time_to_live=st.sampled_from([3 * INTERVAL, 3 * INTERVAL, 2 * INTERVAL, 6 * INTERVAL]),
    tells_time_to_live=st.booleans(),
    takes_away_when_silent=st.booleans(),
    rejects_result=st.sampled_from([None, None, None, 400, 413]),
    answers_duplicates=st.booleans(),
)
CHILDREN = st.builds(
    ChildStory,
    emits_after=st.lists(_seconds(16.0), max_size=6).map(lambda times: tuple(sorted(times))),
    progress=st.frozensets(st.integers(0, 5), max_size=4),
    refused_events=st.frozensets(st.integers(0, 5), max_size=2),
    ends=st.sampled_from([Ends.SUCCEEDED, Ends.SUCCEEDED, *Ends]),
    ends_after=_seconds(24.0),
    on_terminate=st.sampled_from(OnTerminate),
    stops_after=_seconds(2.0),
    dies_after=_seconds(0.5),
    is_reusable=st.booleans(),
)


def stories(*, crashes: bool, spool_after: float) -> st.SearchStrategy[Story]:
    """Stories in which the supervisor is killed at some step, or in none."""
    return st.builds(
        Story,
        server=SERVERS,
        child=CHILDREN,
        suspends=st.lists(st.tuples(_seconds(30.0), st.sampled_from([1.0, 5.0, 60.0])), max_size=2).map(tuple),
        shutdown_after=_sometimes(_seconds(20.0)),
        disk_delays=st.lists(_seconds(2.0), max_size=6).map(tuple),
        disk_is_full=st.sampled_from([False] * 7 + [True]),
        crashes_at=st.integers(1, 60) if crashes else st.none(),
        crashes_after=st.sampled_from([Moment.ANSWER, *Moment]),
        spool_after=st.just(spool_after),
        is_idempotent=st.sampled_from([False, False, False, True]),
        timeout=st.sampled_from([60.0, 60.0, 10.0]),
        grace=_seconds(2.0),
    )


UNEVENTFUL = Story(
    server=ServerStory(
        heartbeats=(),
        events=(),
        completes=(),
        lookups=(),
        cancels_after=None,
        time_to_live=3 * INTERVAL,
        tells_time_to_live=False,
        takes_away_when_silent=False,
        rejects_result=None,
        answers_duplicates=True,
    ),
    child=ChildStory(
        emits_after=(),
        progress=frozenset(),
        refused_events=frozenset(),
        ends=Ends.SUCCEEDED,
        ends_after=1.0,
        on_terminate=OnTerminate.STOPS,
        stops_after=0.0,
        dies_after=0.0,
        is_reusable=True,
    ),
    suspends=(),
    shutdown_after=None,
    disk_delays=(),
    disk_is_full=False,
    crashes_at=None,
    crashes_after=Moment.CLAIM,
    spool_after=5.0,
    is_idempotent=False,
    timeout=60.0,
    grace=2.0,
)
SLOW_AFTER_START = (0.0,) * 8 + (2.0,)
"""The replay has looked for what there is to send, then the disk becomes slow."""
TALES = {
    "it is killed after a cancel that came while events were under way": replace(
        UNEVENTFUL,
        server=replace(UNEVENTFUL.server, events=(Fate(Turn.REQUEST_LOST),), cancels_after=0.0),
        child=replace(UNEVENTFUL.child, emits_after=(0.0,)),
        suspends=((4.5, 0.1),),  # so that something happens before it is reported
        spool_after=0.0,
        crashes_at=7,
        crashes_after=Moment.CANCEL,
    ),
    "the lease is found to be over twice, the second time while the outcome is written": replace(
        UNEVENTFUL,
        child=replace(UNEVENTFUL.child, ends_after=1.25),
        suspends=((1.1, 60.0),),
        disk_delays=SLOW_AFTER_START,
        spool_after=100.0,
    ),
    "the program is shut down while the last events of a handler that has failed are under way": replace(
        UNEVENTFUL,
        server=replace(UNEVENTFUL.server, events=(Fate(there=3.0),)),
        child=replace(UNEVENTFUL.child, emits_after=(0.5,), ends=Ends.FAILED),
        shutdown_after=2.0,
    ),
    "the report is accepted while the outcome is written": replace(
        UNEVENTFUL,
        server=replace(UNEVENTFUL.server, completes=(Fate(there=0.2),)),
        child=replace(UNEVENTFUL.child, ends_after=4.9),
        disk_delays=SLOW_AFTER_START,
    ),
    "the outcome is to be written while its report ends": replace(
        UNEVENTFUL,
        child=replace(UNEVENTFUL.child, ends_after=4.9),
        disk_delays=SLOW_AFTER_START,
    ),
}
"""What chance hardly tells."""
