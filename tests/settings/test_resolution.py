from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as cases
from hypothesis import strategies as st

from supervisor.settings.resolution import ConfigError, HostInfo, read_values, resolve
from supervisor.settings.settings import OPTIONS, Settings
from supervisor.settings.value_types import Share

MACHINE = HostInfo(cpus=6, host="box", pid=71, random="ab12cd", home=Path("/home/user"))
NEEDED = {"MOBIUS_BASE_URL": "https://api.example.com", "PROJECT": "acme"}


def settle(environment: dict[str, str] | None = None, key_project: str | None = None, **given: str) -> Settings:
    texts = {name: (text,) for name, text in given.items()}
    return resolve(texts, NEEDED | (environment or {}), MACHINE, has_key=True, key_project=key_project)


def complaint(environment: dict[str, str] | None = None, **given: str) -> str:
    with pytest.raises(ConfigError) as caught:
        settle(environment, **given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = settle()

    assert settings == Settings(
        workers=6,
        handlers=(Path("handlers"),),
        queues=("default",),
        base_url="https://api.example.com",
        project="acme",
        worker_id="box-71-ab12cd",
        api_key_file=None,
        wait_seconds=20.0,
        auth_timeout=120.0,
        proxy="env",
        cancel_grace=2.0,
        job_timeout=None,
        job_memory=None,
        max_jobs_per_child=None,
        max_memory_per_child=None,
        min_free_memory=Share(part=0.05),
        nice=5,
        threads=1,
        drain_timeout=300.0,
        lease_ttl=None,
        max_heartbeat_interval=None,
        spool_after=5.0,
        import_timeout=60.0,
        pass_env=(),
        state_dir=Path("/home/user/.local/state/mobius-supervisor"),
        watch=False,
        forward_output=False,
        socket=None,
        listen=None,
        listen_names=(),
        listen_token_file=None,
        log_level="info",
        log_format="auto",
    )


def test_the_command_line_wins_over_the_own_name_and_that_over_the_aliases() -> None:
    environment = {"MOBIUS_WORKER_ID": "4th", "WORKER_ID": "3rd", "MOBIUS_SUPERVISOR_WORKER_ID": "2nd"}

    found = []
    found.append(settle(environment, worker_id="1st").worker_id)
    for name in ("MOBIUS_SUPERVISOR_WORKER_ID", "WORKER_ID", "MOBIUS_WORKER_ID"):
        found.append(settle(environment).worker_id)
        del environment[name]
    found.append(settle(environment).worker_id)

    assert found == ["1st", "2nd", "3rd", "4th", "box-71-ab12cd"]


@pytest.mark.parametrize(
    ("variable", "name", "text", "value"),
    [
        ("MOBIUS_BASE_URL", "base_url", "https://one.example", "https://one.example"),
        ("MOBIUS_API_URL", "base_url", "https://two.example", "https://two.example"),
        ("PROJECT", "project", "one", "one"),
        ("MOBIUS_PROJECT", "project", "two", "two"),
        ("MOBIUS_QUEUES", "queues", "a,b", ("a", "b")),
        ("MOBIUS_LOG_LEVEL", "log_level", "WARN", "warning"),
        ("MOBIUS_SUPERVISOR_CANCEL_GRACE", "cancel_grace", "500ms", 0.5),
        ("MOBIUS_SUPERVISOR_HANDLERS", "handlers", "one:two", (Path("one"), Path("two"))),
        ("MOBIUS_SUPERVISOR_PASS_ENV", "pass_env", "TOKEN, OTHER", ("TOKEN", "OTHER")),
        ("MOBIUS_SUPERVISOR_API_KEY_FILE", "api_key_file", "/run/key", Path("/run/key")),
    ],
)
def test_a_setting_is_taken_from_its_environment_names(variable: str, name: str, text: str, value: object) -> None:
    environment = {key: found for key, found in NEEDED.items() if key not in OPTIONS[name].variables}

    settings = resolve({}, environment | {variable: text}, MACHINE, has_key=True, key_project=None)

    assert getattr(settings, name) == value


def test_a_variable_that_is_set_but_empty_counts_as_absent() -> None:
    settings = settle({"MOBIUS_SUPERVISOR_WORKERS": "", "WORKER_ID": ""})

    assert (settings.workers, settings.worker_id) == (6, "box-71-ab12cd")


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"workers": "0"}, "--workers: must be at least 1, not '0'"),
        ({"workers": "-3"}, "at least 1"),
        ({"workers": "1025"}, "--workers: must be at most 1,024, not '1025'"),
        ({"workers": "99999999999"}, "must be at most 1,024"),
        ({"workers": "many"}, "a whole number or 'auto', not 'many'"),
        ({"base_url": "api.example.com"}, "--base-url: must be a URL"),
        ({"base_url": "ftp://api.example.com"}, "must be a URL"),
        ({"base_url": "https://api.example.com:99999"}, "must be a URL"),
        ({"base_url": "https://"}, "must be a URL"),
        ({"base_url": "https://[::1"}, "must be a URL"),
        ({"base_url": "https://user:secret@api.example.com"}, "must not contain a user name or password"),
        ({"base_url": "https://api.example.com/?a=1"}, "without '?' or '#'"),
        ({"project": "Acme"}, "--project: must be a project handle"),
        ({"project": "a--b"}, "must be a project handle"),
        ({"worker_id": ""}, "--worker-id: must not be empty"),
        ({"worker_id": "  "}, "must not be empty"),
        ({"worker_id": "a\nb"}, "control characters"),
        ({"worker_id": "a\x1b[31m"}, "control characters"),
        ({"worker_id": "w\udcc3\udcb6rker"}, "must be text that the locale can read, not 'wörker': set LC_ALL=C.UTF-8"),
        ({"worker_id": "a\udcff"}, "must be UTF-8, not 'a\\udcff'"),
        ({"worker_id": "a\ud800"}, "must be UTF-8, not 'a\\ud800'"),
        ({"worker_id": "a" * 201}, "at most 200 characters, not 201"),
        ({"queue": ","}, "--queue: must not be empty"),
        ({"queue": "a\tb"}, "control characters"),
        ({"cancel_grace": "-1s"}, "--cancel-grace: '-1s' is not a duration"),
        ({"drain_timeout": "soon"}, "--drain-timeout: 'soon' is not a duration"),
        (
            {"min_free_memory": "150%"},
            "--min-free-memory: must be a size such as '512MiB', a part below 100% such as '5%'",
        ),
        ({"min_free_memory": "much"}, "or 'off', not 'much'"),
        ({"wait_seconds": "-1"}, "--wait-seconds: '-1' is not a duration"),
        ({"lease_ttl": "0"}, "--lease-ttl: must be longer than nothing"),
        ({"max_heartbeat_interval": "0s"}, "--max-heartbeat-interval: must be longer than nothing"),
        ({"import_timeout": "0"}, "--import-timeout: must be longer than nothing"),
        ({"pass_env": "A=1"}, "--pass-env: must be the name of an environment variable, not 'A=1'"),
        ({"pass_env": "MOBIUS_API_KEY"}, "handlers never see it"),
        ({"pass_env": "NOTIFY_SOCKET"}, "handlers never see it"),
        ({"state_dir": "a\0b"}, "--state-dir: must be a path"),
        ({"listen_name": "render.example:9187"}, "--listen-name: must be a host name without a port"),
        ({"listen_name": "*.example"}, "or '*', not '*.example'"),
        ({"log_level": "loud"}, "--log-level: must be one of debug, info, warning, error, not 'loud'"),
        ({"log_format": "xml"}, "--log-format: must be one of auto, console, json"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_the_name_of_the_setting(given: dict[str, str], part: str) -> None:
    assert part in complaint(**given)


def test_a_wrong_value_from_the_environment_names_the_variable() -> None:
    assert complaint({"MOBIUS_QUEUES": ","}).startswith("MOBIUS_QUEUES: ")
    assert complaint({"MOBIUS_SUPERVISOR_WORKERS": "99999999"}).startswith("MOBIUS_SUPERVISOR_WORKERS: must be at most")


def test_names_to_listen_by_are_told_apart_as_name_servers_do() -> None:
    assert settle(listen_name="Render.example.,my_service,*").listen_names == ("render.example", "my_service", "*")


def test_all_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({}, {}, MACHINE, has_key=False, key_project=None)

    assert all(name in str(caught.value) for name in ("--base-url", "--project", "MOBIUS_API_KEY"))


def test_the_project_may_come_from_the_key() -> None:
    without_project = {"MOBIUS_BASE_URL": "https://api.example.com"}

    settings = resolve({}, without_project, MACHINE, has_key=True, key_project="pinned")

    assert settings.project == "pinned"


def test_a_key_of_another_project_is_refused() -> None:
    with pytest.raises(ConfigError, match="the project is 'acme', but the API key belongs to 'other'"):
        settle(key_project="other")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:1", "http://a.localhost"])
def test_plain_http_is_allowed_to_this_machine(url: str) -> None:
    assert settle(base_url=url).base_url == url


@pytest.mark.parametrize("url", ["http://api.example.com", "http://10.0.0.1", "http://127.0.0.1.example.com"])
def test_plain_http_to_another_machine_must_be_allowed_explicitly(url: str) -> None:
    assert "unencrypted" in complaint(base_url=url)
    assert settle(base_url=url, allow_http="1").base_url == url


def test_a_base_url_may_have_a_path_and_ends_without_a_slash() -> None:
    assert settle(base_url="https://example.com/mobius//").base_url == "https://example.com/mobius"


def test_waiting_is_limited_to_what_the_server_allows() -> None:
    assert settle(wait_seconds="10m").wait_seconds == 30.0


def test_queues_may_be_repeated_and_joined_and_count_once() -> None:
    settings = resolve({"queue": ("a, b", "c", "a")}, NEEDED, MACHINE, has_key=True, key_project=None)

    assert settings.queues == ("a", "b", "c")


@pytest.mark.parametrize(
    ("environment", "given", "queues"),
    [
        ({}, {"all_queues": "1"}, ()),
        ({"MOBIUS_SUPERVISOR_ALL_QUEUES": "yes"}, {}, ()),
        ({"MOBIUS_SUPERVISOR_ALL_QUEUES": "no"}, {}, ("default",)),
        ({"MOBIUS_QUEUES": "a"}, {"all_queues": "1"}, ()),
        ({"MOBIUS_SUPERVISOR_ALL_QUEUES": "1"}, {"queue": "a"}, ("a",)),
        ({"MOBIUS_SUPERVISOR_ALL_QUEUES": "1", "MOBIUS_QUEUES": "a"}, {}, ()),
    ],
)
def test_all_queues_or_some_whichever_was_said_nearer(
    environment: dict[str, str], given: dict[str, str], queues: tuple[str, ...]
) -> None:
    assert settle(environment, **given).queues == queues


def test_all_queues_and_some_in_one_place_exclude_each_other() -> None:
    assert complaint(all_queues="1", queue="a") == "--queue and --all-queues exclude each other"


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/one:/var/lib/two", "XDG_STATE_HOME": "/x"}, "/var/lib/one"),
        ({"XDG_STATE_HOME": "/x"}, "/x/mobius-supervisor"),
        ({"XDG_STATE_HOME": "relative"}, "/home/user/.local/state/mobius-supervisor"),
    ],
)
def test_the_state_folder_follows_systemd_then_xdg(environment: dict[str, str], folder: str) -> None:
    assert settle(environment).state_dir == Path(folder)


def test_a_command_can_read_a_few_options_without_the_required_ones() -> None:
    values = read_values(("import_timeout", "pass_env", "base_url"), {"import_timeout": ("5s",)}, {})

    assert values == {"import_timeout": 5.0, "pass_env": (), "base_url": None}


@cases(st.dictionaries(st.sampled_from([option.key for option in OPTIONS.values()]), st.text(max_size=20)))
def test_whatever_is_given_makes_settings_or_one_sentence(given: dict[str, Any]) -> None:
    found: Settings | str
    try:
        found = settle(**given)
    except ConfigError as error:
        found = str(error)

    if isinstance(found, Settings):
        assert found.workers >= 1
        assert 0 <= found.wait_seconds <= 30
    else:
        assert found


def test_a_home_is_needed_only_where_nothing_else_says_where_the_state_is() -> None:
    homeless = dataclasses.replace(MACHINE, home=None)

    found = [
        resolve(given, NEEDED | environment, homeless, has_key=True, key_project=None).state_dir
        for given, environment in (({"state_dir": ("/a",)}, {}), ({}, {"XDG_STATE_HOME": "/b"}))
    ]

    assert found == [Path("/a"), Path("/b/mobius-supervisor")]
    with pytest.raises(ConfigError, match="give --state-dir"):
        resolve({}, NEEDED, homeless, has_key=True, key_project=None)
