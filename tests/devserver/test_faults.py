from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.devserver.faults import (
    CALLS,
    KINDS,
    Fault,
    FaultScriptError,
    Hang,
    Occasion,
    Schedule,
    Status,
    parse_faults,
    parse_text,
)

HANG = {"call": "any", "what": "hang"}


def schedule(*faults: dict[str, Any], seed: int = 0) -> Schedule:
    return Schedule(parse_faults({"seed": seed, "faults": [HANG | fault for fault in faults]}))


def struck(script: Schedule, *occasions: Occasion) -> list[int]:
    """The numbers, from 1, of the calls on which a fault fell."""
    return [number for number, occasion in enumerate(occasions, 1) if script.strike(occasion)]


def beats(count: int, job_id: str = "j", **rest: Any) -> list[Occasion]:
    return [Occasion("heartbeat", job_id, **rest)] * count


def test_a_script_is_a_list_of_faults_and_a_seed() -> None:
    script = parse_faults({"seed": 7, "faults": [{"call": "claim", "what": "status", "status": 503, "first": 2}]})

    assert script.seed == 7
    assert script.faults == (Status(call="claim", status=503, first=2),)


def test_an_empty_script_is_one() -> None:
    assert parse_faults({}).faults == ()


@pytest.mark.parametrize(
    "text", ['[[faults]]\ncall = "any"\nwhat = "hang"', '{"faults": [{"call": "any", "what": "hang"}]}']
)
def test_scripts_are_toml_or_json(text: str) -> None:
    script = parse_text(text, is_json=text.startswith("{"))

    assert script.faults == (Hang(call="any"),)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"what": "explode"}, "faults[1].what: invalid value 'explode'; it must be one of cancel, delay, "),
        ({"what": None}, "faults[1].what: expected `str`, got `NoneType`; it must be one of "),
        ({"call": "calm"}, "faults[1].call: invalid enum value 'calm'"),
        ({"call": 3}, "faults[1].call: "),
        ({"nth": 0}, "faults[1].nth: expected `int` >= 1"),
        ({"first": "two"}, "faults[1].first: expected `int | null`, got `str`"),
        ({"probability": 1.5}, "faults[1].probability: expected `float` <= 1.0"),
        ({"probability": float("nan")}, "faults[1].probability: "),
        ({"seconds": 1}, "faults[1]: object contains unknown field `seconds`"),
        ({"what": "status"}, "faults[1]: object missing required field `status`"),
        ({"what": "status", "status": 99}, "faults[1].status: expected `int` >= 200"),
        ({"what": "status", "status": 429, "retry_after": "1\r\nX: y"}, "faults[1].retry_after: "),
        ({"what": "status", "status": 429, "retry_after": 1, "retry_date": 1}, "faults[1].retry_date: cannot be given"),
        ({"what": "delay"}, "faults[1]: object missing required field `seconds`"),
        ({"what": "delay", "seconds": -1}, "faults[1].seconds: expected `float` >= 0.0"),
        ({"what": "reset", "bytes": -1}, "faults[1].bytes: expected `int` >= 0"),
        ({"what": "garbage", "of": "xml"}, "faults[1].of: invalid enum value 'xml'"),
        ({"what": "duplicate_claim"}, "faults[1].call: must be 'claim' for a duplicate_claim, not 'any'"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_sentence_that_begins_with_its_place(
    fault: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(FaultScriptError) as raised:
        parse_faults({"faults": [HANG, HANG | fault]})

    assert str(raised.value).startswith(sentence)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ({"faults": 3}, "faults: expected `array`, got `int`"),
        ({"faults": [3]}, "faults[0]: expected `object`, got `int`"),
        ({"seed": "x"}, "seed: expected `int`, got `str`"),
        ({"fault": []}, "the script: object contains unknown field `fault`"),
    ],
)
def test_a_script_of_another_shape_is_refused(script: Any, sentence: str) -> None:
    with pytest.raises(FaultScriptError) as raised:
        parse_faults(script)

    assert str(raised.value) == sentence


@pytest.mark.parametrize(("text", "is_json"), [("call = ", False), ("{", True), ("[" * 100_000, True), ("\0", False)])
def test_a_text_that_is_no_script_is_refused(text: str, is_json: bool) -> None:
    with pytest.raises(FaultScriptError, match=r"^is not (JSON|TOML): "):
        parse_text(text, is_json=is_json)


@pytest.mark.parametrize("call", CALLS)
def test_a_fault_falls_on_its_call_only_or_on_any(call: str) -> None:
    occasions = [Occasion(name) for name in CALLS]

    assert struck(schedule({"call": call}), *occasions) == [CALLS.index(call) + 1]
    assert struck(schedule({"call": "any"}), *occasions) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"nth": 3}, [3]),
        ({"first": 2}, [1, 2]),
        ({"every": 3}, [3, 6]),
        ({"after": 4}, [5, 6]),
        ({"after": 0}, [1, 2, 3, 4, 5, 6]),
        ({"after": 1, "first": 4, "every": 2}, [2, 4]),
        ({"probability": 0.0}, []),
        ({"probability": 1.0}, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_a_fault_falls_at_its_occurrence(when: dict[str, Any], expected: list[int]) -> None:
    assert struck(schedule(when), *beats(6)) == expected


@pytest.mark.parametrize("which", [{"job_id": "b"}, {"action": "resize"}, {"claimed": 2}])
def test_a_fault_falls_on_its_job_and_counts_its_calls_alone(which: dict[str, Any]) -> None:
    ours, other = Occasion("heartbeat", "b", "resize", 2), Occasion("heartbeat", "a", "crop", 1)

    assert struck(schedule(which | {"nth": 2}), other, other, ours, other, ours, ours) == [5]


def test_a_claim_that_shall_be_told_by_its_job_is_met_when_the_job_is_handed_out() -> None:
    coming, handing_out = Occasion("claim"), Occasion("claim", "b", "resize", 1)

    assert struck(schedule({"action": "resize"}), coming, handing_out) == [2]
    assert struck(schedule({}), coming, handing_out) == [1]


@pytest.mark.parametrize("what", ["expire_lease", "cancel", "duplicate_claim"])
def test_what_befalls_a_job_waits_for_one(what: str) -> None:
    script = schedule({"call": "claim", "what": what})

    assert struck(script, Occasion("claim"), Occasion("claim"), Occasion("claim", "b", "resize", 1)) == [3]


def test_the_first_fault_strikes_and_the_others_count_on() -> None:
    script = Schedule(
        parse_faults({"faults": [HANG | {"nth": 2}, {"call": "any", "what": "status", "status": 500, "every": 2}]})
    )

    kinds = [fault.kind if (fault := script.strike(occasion)) else None for occasion in beats(4)]

    assert kinds == [None, "hang", None, "status"]


def test_the_same_seed_gives_the_same_faults_and_another_gives_others() -> None:
    fate = [struck(schedule({"probability": 0.3}, seed=seed), *beats(200)) for seed in (1, 1, 2)]

    assert fate[0] == fate[1] != fate[2]
    assert 30 < len(fate[0]) < 90


def test_what_one_fault_draws_does_not_depend_on_the_calls_of_another() -> None:
    faults = ({"call": "heartbeat", "probability": 0.5}, {"call": "events", "probability": 0.5})
    alone, mixed = schedule(*faults), schedule(*faults)
    for _ in range(17):
        mixed.strike(Occasion("events", "j"))

    assert struck(alone, *beats(50)) == struck(mixed, *beats(50))


CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "nth": st.integers(1, 12),
        "first": st.integers(1, 12),
        "every": st.integers(1, 6),
        "after": st.integers(0, 12),
        "probability": st.floats(0, 1),
        "action": st.sampled_from(["resize", "crop"]),
        "job_id": st.sampled_from(["a", "b"]),
        "claimed": st.integers(1, 3),
    },
)
KEYS = {"status": {"status": 500}, "delay": {"seconds": 0}, "duplicate_claim": {"call": "claim"}}
FAULTS = st.builds(
    lambda what, call, conditions: {"what": what, "call": call} | KEYS.get(what, {}) | conditions,
    st.sampled_from(KINDS),
    st.sampled_from([*CALLS, "any"]),
    CONDITIONS,
)
JOBS = st.sampled_from([("a", "resize", 1), ("b", "crop", 2), ("c", "resize", None)])
OCCASIONS = st.builds(lambda call, job: Occasion(call, *job), st.sampled_from(CALLS), JOBS) | st.just(Occasion("claim"))


@given(st.lists(FAULTS, max_size=4), st.integers(), st.lists(OCCASIONS, max_size=40))
def test_a_script_decides_alike_each_time_and_only_as_its_conditions_allow(
    faults: list[dict[str, Any]], seed: int, occasions: list[Occasion]
) -> None:
    script = parse_faults({"faults": faults, "seed": seed})
    first, second = Schedule(script), Schedule(script)

    fates = [first.strike(occasion) for occasion in occasions]

    assert fates == [second.strike(occasion) for occasion in occasions]
    for occasion, fault in zip(occasions, fates, strict=True):
        assert fault is None or fault.fits(occasion)
    for fault in script.faults:
        assert not fault.nth or script.faults.count(fault) > 1 or fates.count(fault) <= 1
        assert not fault.first or script.faults.count(fault) > 1 or fates.count(fault) <= fault.first


def test_every_kind_says_what_it_does() -> None:
    for kind in Fault.__subclasses__():
        assert kind.__doc__
