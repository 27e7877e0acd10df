"""The units: what is printed is what is in `systemd/`, it has no mistake, and it gives little away."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from supervisor.cli import systemd_unit as unit
from supervisor.cli.main import main
from supervisor.cli.systemd_unit import Installation
from supervisor.exit_code import ExitCode
from supervisor.linux import descriptor_limit
from supervisor.settings import value_types as kinds
from supervisor.settings.resolution import ConfigError
from supervisor.settings.settings import OPTIONS
from supervisor.text.duration import parse_duration

SHIPPED = Path(__file__).parents[2] / "systemd"
OPT = Path("/opt/mobius-supervisor")
IN_OPT = Installation(OPT / ".venv/bin/mobius-supervisor", OPT)
TEXTS = {
    "mobius-supervisor.service": unit.service(IN_OPT),
    "mobius-supervisor@.service": unit.template(IN_OPT),
    "mobius-supervisor.service.d/delegate.conf": unit.delegation(),
}
ANALYZE = shutil.which("systemd-analyze")
needs_analyze = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed here")


def printed(*arguments: str) -> tuple[str, str]:
    ended = CliRunner().invoke(main, ["unit", *arguments])
    assert ended.exit_code == 0
    return ended.stdout, ended.stderr


def value(key: str) -> str:
    (found,) = re.findall(rf"^{key}=(.*)$", unit.service(IN_OPT), re.MULTILINE)
    return str(found)


def analyzed(tmp_path: Path, name: str, *command: str) -> subprocess.CompletedProcess[str]:
    """What systemd-analyze says of a unit, whose program is installed."""
    assert ANALYZE is not None
    text = re.sub("^(Exec(Start|Reload))=.*$", r"\1=/bin/true", TEXTS[name], flags=re.MULTILINE)
    (tmp_path / name).write_text(text)
    instance = tmp_path / name.replace("@", "@instance")
    return subprocess.run([ANALYZE, *command, instance], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", TEXTS)
def test_the_files_in_the_repository_are_what_is_printed_for_opt(name: str) -> None:
    assert (SHIPPED / name).read_text() == TEXTS[name]


def test_nothing_else_is_shipped() -> None:
    assert {str(file.relative_to(SHIPPED)) for file in SHIPPED.rglob("*") if file.is_file()} == set(TEXTS)


def test_it_is_printed_with_the_paths_of_this_installation(tmp_path: Path) -> None:
    text, warnings = printed("--directory", str(tmp_path))

    (program,) = re.findall("^ExecStart=(.*) run$", text, re.MULTILINE)
    assert Path(program.strip('"')) == Path(sys.executable).parent / "mobius-supervisor"
    assert f"WorkingDirectory={tmp_path}\n" in text
    assert f"the service will not see {tmp_path}" in warnings


@pytest.mark.parametrize("folder", ["/nonexistent", "/"])
def test_a_folder_without_handlers_is_warned_of(folder: str, tmp_path: Path) -> None:
    (tmp_path / "handlers").mkdir()
    warning = f"Warning: there is no folder {Path(folder) / 'handlers'}: name its place by --directory\n"

    assert warning in printed("--directory", folder)[1]
    assert "there is no folder" not in printed("--directory", str(tmp_path))[1]


def test_template_and_drop_in_are_printed_alone() -> None:
    assert printed("--delegate") == (unit.delegation(), "")
    assert "LoadCredential=mobius-api-key:/etc/mobius-supervisor/%i/api-key\n" in printed("--template")[0]
    assert CliRunner().invoke(main, ["unit", "--delegate", "--template"]).exit_code == ExitCode.USAGE


def test_instances_share_no_key_no_settings_no_user_and_no_state() -> None:
    plain, template = (text.splitlines() for text in (unit.service(IN_OPT), unit.template(IN_OPT)))

    changed = [line.partition("=")[0] for line in template if line not in plain and not line.startswith("#")]

    own = {"LoadCredential", "EnvironmentFile", "User", "StateDirectory", "RuntimeDirectory"}
    assert set(changed) == {"Description", *own}
    assert all("%i" in line for line in template if line not in plain)


def test_a_path_may_have_blanks_and_letters_beyond_ascii() -> None:
    text = unit.service(Installation(Path("/opt/my jobs/ü/bin/mobius-supervisor"), Path("/opt/my jobs/ü")))

    assert 'ExecStart="/opt/my jobs/ü/bin/mobius-supervisor" run\n' in text
    assert "WorkingDirectory=/opt/my jobs/ü\n" in text


@pytest.mark.parametrize(
    "folder", ["/opt/jobs ", "/opt/a\tb", "/opt/100%", "/opt/$HOME", "/opt/a\nUser=root", "relative"]
)
def test_a_path_that_systemd_would_read_otherwise_is_refused(folder: str) -> None:
    with pytest.raises(ConfigError, match="install elsewhere"):
        Installation(IN_OPT.program, Path(folder))


@needs_analyze
@pytest.mark.parametrize("name", ["mobius-supervisor.service", "mobius-supervisor@.service"])
def test_a_unit_has_no_mistake(tmp_path: Path, name: str) -> None:
    ended = analyzed(tmp_path, name, "verify")

    # The exit code is 0 even for unknown keys: any output is a failure.
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@needs_analyze
@pytest.mark.parametrize("name", ["mobius-supervisor.service", "mobius-supervisor@.service"])
@pytest.mark.parametrize("is_delegated", [False, True])
def test_a_unit_gives_little_away(tmp_path: Path, name: str, *, is_delegated: bool) -> None:
    if is_delegated:
        (tmp_path / f"{name}.d").mkdir()
        (tmp_path / f"{name}.d" / "delegate.conf").write_text(unit.delegation())

    ended = analyzed(tmp_path, name, "security", "--offline=true", "--threshold=20", "--no-pager")  # 2.0 of 10

    assert ended.returncode == 0, ended.stdout
    assert bool(re.search("^✗ Delegate=", ended.stdout, re.MULTILINE)) == is_delegated  # the drop-in counts


def test_the_service_does_not_restart_what_a_restart_cannot_help() -> None:
    codes = (ExitCode.USAGE, ExitCode.NO_HANDLER, ExitCode.CREDENTIAL_REFUSED)

    assert value("RestartPreventExitStatus") == " ".join(str(int(code)) for code in codes)


def test_a_reload_ends_with_its_outcome_before_systemd_ends_it() -> None:
    (timeout,) = re.findall(r"^/\S+ reload --timeout (\S+)$", value("ExecReload"))

    assert value("TimeoutStartSec") == "3min"
    assert parse_duration(timeout) < 3 * 60


def test_a_link_to_the_current_release_stays_a_link_in_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "1" / "handlers").mkdir(parents=True)
    (tmp_path / "current").symlink_to("1")
    monkeypatch.chdir(tmp_path / "current")
    monkeypatch.setenv("PWD", str(tmp_path / "current"))

    for arguments in ((), ("--directory", str(tmp_path / "current"))):
        text, _ = printed(*arguments)
        assert f"WorkingDirectory={tmp_path}/current\n" in text
        assert f"Environment=PWD={tmp_path}/current\n" in text


def test_systemd_waits_longer_for_the_end_than_a_drain_lasts() -> None:
    assert value("TimeoutStopSec") == "6min"
    assert parse_duration(OPTIONS["drain_timeout"].default or "") < 6 * 60 - 30


@pytest.mark.parametrize("name", ["mobius-supervisor.service", "mobius-supervisor@.service"])
def test_the_unit_leaves_room_for_the_descriptors_of_all_workers(name: str) -> None:
    line = next(line for line in (SHIPPED / name).read_text().splitlines() if line.startswith("LimitNOFILE="))
    soft, hard = map(int, line.partition("=")[2].split(":"))

    assert soft == 1024  # select(2) in handlers
    assert hard >= descriptor_limit.PROGRAM_DESCRIPTORS + descriptor_limit.DESCRIPTORS_PER_WORKER * kinds.MAX_WORKERS
