"""Children see what they need of the supervisor's environment, and never a credential."""

import pytest

from supervisor.process.environment import child_environment


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "XDG_CACHE_HOME", "SSL_CERT_FILE"],
)
def test_what_programs_usually_need_is_passed(name: str) -> None:
    assert child_environment({name: "value"}, [])[name] == "value"


@pytest.mark.parametrize(
    "name",
    ["MOBIUS_API_KEY", "MOBIUS_BASE_URL", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "AWS_SECRET_ACCESS_KEY", "X"],
)
def test_everything_else_stays_out(name: str) -> None:
    assert child_environment({name: "value"}, []) == {}


def test_what_the_settings_name_is_passed_as_well() -> None:
    assert child_environment({"MODEL": "small", "OTHER": "x"}, ["MODEL", "ABSENT"]) == {
        "MODEL": "small",
    }


@pytest.mark.parametrize("name", ["MOBIUS_API_KEY", "NOTIFY_SOCKET", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY"])
def test_no_setting_can_pass_a_credential_or_the_supervisors_own_sockets(name: str) -> None:
    assert name not in child_environment({name: "value"}, [name])
