"""A variable that looks like a setting and is none is told of, with the one that was perhaps meant."""

from __future__ import annotations

import pytest

from supervisor.settings.settings import OPTIONS
from supervisor.settings.suggestions import misspelt_variables


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        (
            "MOBIUS_SUPERVISOR_JOB_TIMOUT",
            "ignored: there is no setting 'MOBIUS_SUPERVISOR_JOB_TIMOUT'; is it 'MOBIUS_SUPERVISOR_JOB_TIMEOUT'?",
        ),
        (
            "MOBIUS_SUPERVISOR_workers",
            "ignored: there is no setting 'MOBIUS_SUPERVISOR_workers'; is it 'MOBIUS_SUPERVISOR_WORKERS'?",
        ),
        ("MOBIUS_SUPERVISOR_XYZ", "ignored: there is no setting 'MOBIUS_SUPERVISOR_XYZ'"),
        ("MOBIUS_SUPERVISOR_", "ignored: there is no setting 'MOBIUS_SUPERVISOR_'"),
    ],
)
def test_it_is_one_sentence_with_the_nearest_setting_if_there_is_one(variable: str, sentence: str) -> None:
    assert misspelt_variables({variable: "5s"}, []) == [sentence]


@pytest.mark.parametrize("variable", [each for option in OPTIONS.values() for each in option.variables])
def test_no_setting_is_told_of(variable: str) -> None:
    assert misspelt_variables({variable: "1"}, []) == []


@pytest.mark.parametrize(
    "variable",
    [
        "MOBIUS_API_KEY",
        "MOBIUS_JOB_ID",
        "MOBIUS_TEST_VM",
        "MOBIUS_OF_OTHERS",
        "MOBIUS_SUPERVISOR_SERVICE_HOST",
        "MOBIUS_SUPERVISOR_SERVICE_PORT_METRICS",
        "MOBIUS_SUPERVISOR_PORT",
        "MOBIUS_SUPERVISOR_PORT_9187_TCP_ADDR",
    ],
)
def test_what_is_read_by_others_is_left_alone(variable: str) -> None:
    assert misspelt_variables({variable: "1"}, []) == []


def test_what_handlers_are_to_see_and_what_is_empty_is_left_alone() -> None:
    environment = {"MOBIUS_SUPERVISOR_COLOUR": "red", "MOBIUS_SUPERVISOR_WRKERS": ""}

    assert misspelt_variables(environment, ["MOBIUS_SUPERVISOR_COLOUR"]) == []
