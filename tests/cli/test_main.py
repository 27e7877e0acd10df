from __future__ import annotations

import codecs
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from supervisor import service as service_package
from supervisor.cli.main import main
from supervisor.linux.cpu_limit import available_cpus
from supervisor.logs.redaction import Mask
from supervisor.settings.credential import CredentialSource
from supervisor.settings.resolution import ConfigError
from supervisor.settings.settings import OPTIONS, Settings
from supervisor.version import __version__
from tests.harness import is_alive

COMMAND = [sys.executable, "-m", "supervisor"]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in OPTIONS.values():
        for variable in option.variables:
            monkeypatch.delenv(variable, raising=False)
    for variable in ("MOBIUS_API_KEY", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)


class Service:
    """Stands for the running program: remembers what it was given, ends with `code` or `error`."""

    def __init__(self) -> None:
        self.code = 0
        self.error: Exception | None = None
        self.settings: Settings | None = None
        self.token = ""
        self.key_was_unread: bool | None = None
        self.logging: tuple[object, ...] = ()

    def main(self, settings: Settings, source: CredentialSource, _mask: Mask, _reread: object, _file: object) -> int:
        self.settings, self.token = settings, source.read().token
        if self.error:
            raise self.error
        return self.code

    def become_undumpable(self, dumpable: bool) -> None:
        assert not dumpable
        self.key_was_unread = "MOBIUS_API_KEY" in os.environ

    def configure_logging(self, *arguments: object, **keywords: object) -> None:
        self.logging = (*arguments, keywords)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Service:
    fake = Service()
    monkeypatch.setattr(service_package, "service", SimpleNamespace(main=fake.main), raising=False)
    monkeypatch.setattr("supervisor.linux.syscalls.set_dumpable", fake.become_undumpable)
    monkeypatch.setattr("supervisor.logs.log.configure", fake.configure_logging)
    monkeypatch.setenv("MOBIUS_API_KEY", "mbx_secret")
    monkeypatch.setenv("MOBIUS_BASE_URL", "https://api.example.com")
    monkeypatch.setenv("PROJECT", "acme")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "handlers").mkdir()
    return fake


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("arguments", [["--workers", "8"], ["run", "--workers", "8"]])
def test_run_is_what_happens_without_a_command(service: Service, arguments: list[str]) -> None:
    result = invoke(*arguments)

    assert result.exit_code == 0, result.output
    assert service.settings is not None
    assert (service.settings.workers, service.settings.project, service.token) == (8, "acme", "mbx_secret")


def test_run_without_any_option_needs_the_environment_only(service: Service) -> None:
    result = invoke()

    assert result.exit_code == 0, result.output
    assert service.settings is not None
    assert service.settings.workers == available_cpus()
    assert re.fullmatch(rf".+-{os.getpid()}-[0-9a-f]{{6}}", service.settings.worker_id)


def test_nobody_can_read_our_memory_before_the_key_is_in_it(service: Service) -> None:
    invoke("run")

    assert service.key_was_unread is True
    assert "MOBIUS_API_KEY" not in os.environ


def test_the_log_is_told_the_key_so_that_it_can_hide_it(service: Service) -> None:
    invoke("run", "--log-level", "debug", "--log-format", "json")

    assert service.logging is not None
    level, line_format, options = service.logging
    assert (level, line_format) == ("debug", "json")
    assert options["mask"]("with mbx_secret in it") == "with *** in it"


def test_the_exit_code_is_the_service_s(service: Service) -> None:
    service.code = 6

    assert invoke("run").exit_code == 6


def test_options_may_be_repeated(service: Service, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()

    invoke("--handlers", "one", "--handlers", "two", "--queue", "a,b", "--queue", "c")

    assert service.settings is not None
    assert service.settings.handlers == (Path("one"), Path("two"))
    assert service.settings.queues == ("a", "b", "c")


def test_a_key_that_names_the_project_is_enough(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROJECT")
    monkeypatch.setenv("MOBIUS_API_KEY", "pinned/mbx_secret")

    invoke("run")

    assert service.settings is not None
    assert (service.settings.project, service.token) == ("pinned", "pinned/mbx_secret")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workers", "0"], "Error: --workers: must be at least 1, not '0'"),
        (["--handlers", "nowhere"], "Error: --handlers: there is no folder 'nowhere'"),
        (["--handlers", "x" * 300], f"Error: --handlers: the folder '{'x' * 300}' cannot be read: File name too long"),
        (["--api-key-file", "nowhere"], "Error: the API key file nowhere cannot be read: No such file or directory"),
        (["--project", "other\x1b"], r"Error: --project: must be a project handle such as 'acme' or 'acme-video'"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_exit_code_2(service: Service, arguments: list[str], sentence: str) -> None:
    result = invoke(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
    assert service.settings is None


def test_what_the_service_finds_wrong_with_the_settings_is_a_sentence_as_well(service: Service) -> None:
    service.error = ConfigError("the server knows no project 'acme'")

    result = invoke("run")

    assert (result.exit_code, result.stderr) == (2, "Error: the server knows no project 'acme'\n")


def test_an_unknown_command_or_option_is_a_usage_error() -> None:
    unknown_command, unknown_option = invoke("serve-jobs"), invoke("--wrokers", "8")

    assert (unknown_command.exit_code, unknown_option.exit_code) == (2, 2)
    assert "No such command 'serve-jobs'" in unknown_command.stderr
    assert "--wrokers" in unknown_option.stderr


def test_help_lists_the_commands_and_says_which_is_the_default() -> None:
    result = invoke("--help")

    assert result.exit_code == 0
    assert all(f"\n  {name} " in result.output for name in ("check", "run", "server", "submit", "version"))
    assert "(the default command)" in result.output


def test_help_shows_each_option_with_its_default_and_environment_names() -> None:
    shown = " ".join(CliRunner().invoke(main, ["run", "--help"], terminal_width=300).output.split())

    for option in OPTIONS.values():
        assert option.flag in shown
        assert f"{option.shown_default or option.default or 'required'}; env: {', '.join(option.variables)}]" in shown


@pytest.mark.parametrize("group", [[], ["spool"]])
def test_no_command_is_told_by_half_a_sentence(group: list[str]) -> None:
    told = invoke(*group, "--help").output.partition("Commands:\n")[2].splitlines()

    assert told
    assert [line for line in told if "..." in line or not line.endswith((".", ")"))] == []


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_the_version_can_be_asked_for_both_ways(arguments: list[str]) -> None:
    assert invoke(*arguments).output == f"mobius-supervisor {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["version"]])
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys; from supervisor.cli.main import main; main(sys.argv[1:], standalone_mode=False);"
        "print('heavy:', *{'aiohttp', 'asyncio', 'uvloop', 'structlog', 'psutil'} & set(sys.modules))"
    )

    ended = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)

    assert ended.stdout.splitlines()[-1] == "heavy:"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images.py").write_text(
        "from supervisor import handler\n"
        "@handler('resize', timeout='10m')\n"
        "def resize(width: int) -> None: ...\n"
        "@handler('crop', idempotent=True, cancel_grace=0.5)\n"
        "def crop() -> None: ...\n"
    )
    return tmp_path


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "check", "--handlers", folder], capture_output=True, text=True, check=False)


def test_check_lists_the_handlers(folder: Path) -> None:
    ended = check(folder)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert [line.split() for line in ended.stdout.splitlines()] == [
        ["ACTION", "MODULE", "TIMEOUT", "GRACE", "MEMORY", "CONCURRENT", "OTHER", "LIMITS"],
        ["crop", "images", "-", "500ms", "-", "-", "idempotent"],
        ["resize", "images", "10m", "-", "-", "-", "-"],
    ]


def test_check_tells_what_is_wrong_by_file_and_line(folder: Path) -> None:
    (folder / "broken.py").write_text("\nimport nothing_of_that_name\n")

    ended = check(folder)

    assert ended.returncode == 3
    assert "resize" in ended.stdout
    assert f"{folder / 'broken.py'}:2: " in ended.stderr


def test_check_cuts_a_name_that_has_no_end(folder: Path) -> None:
    (folder / f"{'y' * 240}.py").write_text("from supervisor import handler\n@handler('x' * 200)\ndef x(): ...\n")

    lines = check(folder).stdout.splitlines()

    assert f"{'x' * 200}  {'y' * 199}…  -" in lines[-1]


def test_check_of_an_empty_folder_is_a_failure(tmp_path: Path) -> None:
    ended = check(tmp_path)

    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr == f"no handler found in {tmp_path}\n"


@pytest.mark.parametrize(
    ("start", "then"),
    [
        ("subprocess.Popen(['sleep', '60']).pid", ""),
        ("subprocess.Popen(['setsid', 'sleep', '60']).pid", "1 / 0"),
        ("subprocess.Popen(['sleep', '60']).pid", "os._exit(5)"),
        ("os.fork() or time.sleep(60) or os._exit(0)", ""),
    ],
)
def test_check_leaves_nothing_behind_that_modules_have_started(folder: Path, start: str, then: str) -> None:
    (folder / "starts.py").write_text(
        "import os, pathlib, subprocess, time\n"
        f"started = {start}\n"
        f"pathlib.Path({str(folder / 'pid')!r}).write_text(str(started))\n"
        f"{then}\n"
    )

    check(folder)

    assert not is_alive(int((folder / "pid").read_text()))


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `mobius-supervisor server` on a free port; give the process and its address."""
    command = [*COMMAND, "server", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_says_how_to_use_it_and_ends_on_a_signal(number: signal.Signals) -> None:
    with serving() as (process, url):
        process.send_signal(number)
        assert process.stdout is not None
        assert process.stderr is not None
        rest, errors = process.stdout.read(), process.stderr.read()
        process.wait(timeout=10)

    assert (process.returncode, errors) == (0, "")
    assert f"export MOBIUS_BASE_URL={url} PROJECT=demo MOBIUS_API_KEY=" in rest


def test_a_port_in_use_is_one_sentence() -> None:
    with serving() as (_, url):
        port = url.rsplit(":", 1)[1]
        ended = subprocess.run([*COMMAND, "server", "--port", port], capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout) == (2, "")
    why = "Address already in use; give another --port, or --port 0 for a free one"
    assert ended.stderr == f"Error: cannot serve on 127.0.0.1:{port}: {why}\n"


def test_the_help_of_dev_names_the_defaults_of_dev_and_no_variable_that_dev_ignores() -> None:
    shown = " ".join(invoke("dev", "--help").output.split())

    assert re.search(r"--log-level \S+ [^\[]*\[default: debug\]", shown)
    assert re.search(r"--listen HOST:PORT [^\[]*\[default: 127\.0\.0\.1:0\]", shown)
    assert "env:" not in shown


def test_a_host_that_has_no_address_is_one_sentence() -> None:
    result = invoke("server", "--host", "nosuch.invalid", "--port", "8080")

    assert result.exit_code == 2
    why = "(Name or service not known|Temporary failure in name resolution)"
    assert re.fullmatch(rf"Error: cannot serve on nosuch\.invalid:8080: {why}\n", result.stderr)


def test_a_database_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    result = invoke("server", "--port", "0", "--db", str(tmp_path / "missing" / "file.db"))

    assert result.exit_code == 2
    assert result.stderr.startswith("Error: cannot use the database ")


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("script.toml", '[[faults]]\ncall = "get_job"\nwhat = "status"\nstatus = 418\n'),
        ("script.json", '{"faults": [{"call": "get_job", "what": "status", "status": 418}]}'),
    ],
)
def test_the_server_makes_the_faults_of_a_script_and_says_so(tmp_path: Path, name: str, script: str) -> None:
    (tmp_path / name).write_bytes(codecs.BOM_UTF8 + script.encode())  # as some editors save it

    with serving("--faults", str(tmp_path / name)) as (process, url):
        call = urllib.request.Request(f"{url}/v1/projects/demo/jobs/7", headers={"Authorization": "Bearer mbx_local"})
        with pytest.raises(urllib.error.HTTPError, match="418"):
            urllib.request.urlopen(call)
        process.terminate()
        told, errors = process.communicate(timeout=10)

    assert told.splitlines()[-1] == "faults injected: 1 status"
    assert errors.endswith(" fault: status on get_job\n")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b'[[faults]]\ncall = "claim"\nwhat = "explode"\n', ": faults[0].what: invalid value 'explode'"),
        (b"[[faults", ": is not TOML: "),
        (b"\xff", ": is not UTF-8 text"),
        ("seed = 1".encode("utf-16"), ": is UTF-16 text: save it as UTF-8"),
        (None, " cannot be read: No such file or directory"),
    ],
)
def test_a_bad_fault_script_is_one_sentence_that_names_the_place(
    tmp_path: Path, content: bytes | None, part: str
) -> None:
    script = tmp_path / "script.toml"
    if content is not None:
        script.write_bytes(content)

    result = invoke("server", "--port", "0", "--faults", str(script))

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: --faults: {script}{part}")
    assert result.stderr.count("\n") == 1


def test_submit_takes_the_settings_of_a_worker_and_the_server_its_key_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("mbx_local\n")
    (tmp_path / "key").chmod(0o600)

    with serving("--api-key-file", str(tmp_path / "key")) as (_, url):
        environment = {**os.environ, "MOBIUS_BASE_URL": url, "PROJECT": "demo", "MOBIUS_API_KEY": "mbx_local"}
        accepted = subprocess.run([*COMMAND, "submit", "resize"], capture_output=True, text=True, env=environment)
        environment["MOBIUS_API_KEY"] = "mbx_other"
        refused = subprocess.run([*COMMAND, "submit", "resize"], capture_output=True, text=True, env=environment)

    assert (accepted.returncode, accepted.stderr) == (0, "")
    assert accepted.stdout.startswith("run_")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert refused.stderr == f"Error: the server at {url} refuses the API key (401)\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--params", "{"], "--params: must be a JSON object"),
        (["--queue", ""], "must not be empty"),
        ([], "missing: --base-url"),
    ],
)
def test_what_is_wrong_with_a_submission_is_said_before_anything_is_sent(arguments: list[str], part: str) -> None:
    result = invoke("submit", "resize", *arguments)

    assert result.exit_code == 2
    assert part in result.stderr


@pytest.mark.parametrize("action", ["", " ", "resize\udcff", "x" * 201])
def test_an_action_that_no_server_takes_is_refused_before_anything_is_sent(action: str) -> None:
    result = invoke("submit", action)

    assert result.exit_code == 2
    assert "Invalid value for 'ACTION': must " in result.stderr


@pytest.mark.parametrize("told", ['{"version": "9.9.9", "state": "dreaming"}', "<html>"])
def test_a_status_of_another_version_is_one_sentence(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setattr("supervisor.control.client.call", lambda *_: told.encode())

    result = invoke("status", "--socket", "/run/a.sock")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: the supervisor at /run/a.sock is of another version than this command (")
    assert result.stderr.endswith("; --json shows it as it is\n")


def test_a_status_as_json_draws_nothing_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.control.client.call", lambda *_: '{"line":"a\x9b2Jb"}'.encode())

    result = invoke("status", "--json", "--socket", "/run/a.sock")

    assert result.stdout == '{"line":"a\\u009b2Jb"}\n'
    assert json.loads(result.stdout) == {"line": "a\x9b2Jb"}


# No user of this machine; that it may read all files is for the interpreter, which may be in root's home.
STRANGER = ("--reuid=54321", "--clear-groups", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
HOMELESS = ["setpriv", *STRANGER, "env", *(f"--unset={name}" for name in ("HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"))]


@pytest.mark.root("only root can become another user")
@pytest.mark.parametrize("command", [["spool", "ls"], ["status"]])
def test_a_user_without_a_home_is_told_to_give_the_state_directory_and_needs_no_more(command: list[str]) -> None:
    state = ["--state-dir", "/nonexistent/state"]
    homeless = [*HOMELESS, *COMMAND, *command]

    without = subprocess.run(homeless, capture_output=True, text=True)
    with_one = subprocess.run([*homeless, *state], capture_output=True, text=True)

    assert (without.returncode, without.stdout) == (2, "")
    assert without.stderr.endswith("this user has no home folder, and HOME is not set: give --state-dir\n")
    assert without.stderr.count("\n") == 1
    assert "/nonexistent/state" in with_one.stderr
    assert "home" not in with_one.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [["--help"], ["run", "--help"], ["version"], ["unit"], ["check"]])
def test_an_output_that_takes_nothing_is_one_sentence(folder: Path, command: list[str], unbuffered: str) -> None:
    environment = {**os.environ, "MOBIUS_SUPERVISOR_HANDLERS": str(folder), "PYTHONUNBUFFERED": unbuffered}

    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([*COMMAND, *command], stdout=full, stderr=subprocess.PIPE, text=True, env=environment)

    assert ended.returncode == 1
    assert ended.stderr.endswith("Error: the output cannot be written: No space left on device\n")
    assert "Traceback" not in ended.stderr
