"""The choice of restrictions, and their effect: the kernel denies the restricted actions, and only these."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.linux import landlock, seccomp
from supervisor.linux.confinement import (
    CONTROL_GROUPS,
    UNRESTRICTED,
    Confinement,
    HostSupport,
    Secret,
    choose,
    missing_protections,
    probe,
)
from supervisor.linux.syscalls import are_new_privileges_forbidden
from tests.linux.confined_helper import run_confined

KEY = Path("/etc/mobius/key")
TOKEN = Path("/etc/mobius/token")
SYSTEMD_UNIT = HostSupport(
    (Secret(KEY),), has_exposed_key=False, can_protect_cgroups=True, has_no_new_privs=True, landlock=7, has_seccomp=True
)
needs_landlock = pytest.mark.skipif(landlock.version() < landlock.WITH_SIGNALS, reason="this kernel's Landlock is old")


def host(**changes: object) -> HostSupport:
    return dataclasses.replace(SYSTEMD_UNIT, **changes)  # type: ignore[arg-type]  # a table of cases


def test_handlers_of_the_systemd_unit_are_fully_confined() -> None:
    expected = Confinement(hidden=(str(KEY),), protects_cgroups=True, blocks_signals=True, filters_calls=True)

    assert choose(SYSTEMD_UNIT) == expected
    assert missing_protections(SYSTEMD_UNIT) == []


def test_handlers_of_a_developer_are_not_confined_and_no_warning_is_given() -> None:
    probed = host(secrets=(), has_no_new_privs=False)

    assert choose(probed) == Confinement()
    assert missing_protections(probed) == []


def test_without_a_key_file_signals_are_still_restricted() -> None:
    expected = Confinement((), protects_cgroups=True, blocks_signals=True, filters_calls=True)

    assert choose(host(secrets=())) == expected


def test_a_key_below_a_writable_folder_is_not_hidden_and_a_warning_is_given() -> None:
    open_key = Secret(KEY, Path("/home/ada"))
    probed = host(secrets=(open_key,), has_no_new_privs=False)

    assert choose(probed) == Confinement()
    assert choose(host(secrets=(open_key, Secret(TOKEN)), has_no_new_privs=False)).hidden == (str(TOKEN),)
    assert missing_protections(probed) == [
        "handlers can read /etc/mobius/key: it is below /home/ada, where they may create files"
    ]


@pytest.mark.parametrize("version", [0, 1])
def test_without_landlock_system_calls_are_still_filtered(version: int) -> None:
    probed = host(landlock=version)

    assert choose(probed) == Confinement(filters_calls=True)
    assert choose(host(landlock=version, has_no_new_privs=False, has_seccomp=False)) == Confinement()
    assert missing_protections(probed) == [
        "there is no Landlock (Linux 5.19): handlers can read /etc/mobius/key, and signal the supervisor"
    ]


def test_landlock_without_signals_hides_the_key_and_a_warning_is_given() -> None:
    probed = host(landlock=5)

    assert choose(probed) == Confinement((str(KEY),), protects_cgroups=True, blocks_signals=False, filters_calls=True)
    assert missing_protections(probed) == ["Landlock is older than Linux 6.12: handlers can signal the supervisor"]


def test_missing_seccomp_filters_are_reported_where_handlers_are_confined() -> None:
    probed = host(has_seccomp=False)

    assert choose(probed) == Confinement((str(KEY),), protects_cgroups=True, blocks_signals=True)
    assert [sentence.partition(":")[0] for sentence in missing_protections(probed)] == [
        "the kernel or a sandbox has no seccomp filter here"
    ]
    assert missing_protections(host(has_seccomp=False, secrets=(), has_no_new_privs=False)) == []


def test_only_regular_files_are_hidden(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert probe([tmp_path / "pipe", tmp_path / "missing", tmp_path]).secrets == ()


def test_a_key_in_the_environment_of_an_ancestor_confines_handlers() -> None:
    probed = host(secrets=(), has_no_new_privs=False, has_exposed_key=True)

    expected = Confinement((), protects_cgroups=True, blocks_signals=True, filters_calls=True)

    assert choose(probed) == expected


def test_a_link_to_a_key_is_resolved_and_its_open_folder_found(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("mbx_secret")
    (tmp_path / "link").symlink_to("key")

    probed = probe([tmp_path / "link", tmp_path / "key"])

    assert probed.secrets == (Secret(tmp_path / "key", tmp_path),)


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "other").write_text("other")
    (folder / "key").write_text("mbx_secret")
    (folder / "token").write_text("a token")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))  # /tmp itself is on the way to the key
    return folder / "key"


def everything(key: Path) -> Confinement:
    return Confinement(
        (str(key), str(key.parent / "token")),
        protects_cgroups=CONTROL_GROUPS.is_dir(),
        blocks_signals=True,
        filters_calls=seccomp.is_available(),
    )


@needs_landlock
def test_the_key_cannot_be_read_linked_or_moved_to_a_readable_folder(key: Path, tmp_path: Path) -> None:
    readable = tmp_path / "readable"
    readable.mkdir()

    def rotated() -> str:
        (key.parent / "new").write_text("mbx_new")
        (key.parent / "new").replace(key)
        return key.read_text()

    assert run_confined(everything(key), key.read_text) == "PermissionError"
    assert run_confined(everything(key), (key.parent / "token").read_text) == "PermissionError"
    assert run_confined(everything(key), lambda: os.link(key, readable / "key")) == "OSError"
    assert run_confined(everything(key), lambda: key.rename(readable / "key")) == "OSError"
    assert run_confined(everything(key), rotated) == "PermissionError"


@needs_landlock
def test_files_beside_the_key_can_be_read(key: Path, tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()

    def write_and_read() -> str:
        (tmp_path / "beside" / "new").write_text("new")
        return (tmp_path / "beside" / "new").read_text()

    assert run_confined(everything(key), (key.parent / "other").read_text) == "other"
    assert run_confined(everything(key), write_and_read) == "new"


@needs_landlock
def test_control_groups_cannot_be_changed(key: Path) -> None:
    group = next((file.parent for file in CONTROL_GROUPS.glob("**/cgroup.procs")), None)
    if group is None:
        pytest.skip("no control group is mounted here")

    assert run_confined(everything(key), lambda: (group / "cgroup.procs").write_text("0")) == "PermissionError"
    assert run_confined(everything(key), (group / "mobius-test").mkdir) == "PermissionError"


@needs_landlock
@pytest.mark.parametrize("number", [0, signal.SIGTERM, signal.SIGSTOP])
def test_only_processes_of_the_job_can_be_signalled(key: Path, number: int) -> None:
    tests = os.getpid()

    def end_own_child() -> int:
        own = subprocess.Popen(["sleep", "60"])
        own.kill()
        return own.wait()

    assert run_confined(everything(key), lambda: os.kill(tests, number)) == "PermissionError"
    assert run_confined(everything(key), end_own_child) == "-9"


@needs_landlock
def test_the_memory_of_a_process_outside_cannot_be_read(key: Path) -> None:
    tests = os.getpid()

    assert run_confined(everything(key), lambda: os.open(f"/proc/{tests}/mem", os.O_RDONLY)) == "PermissionError"
    assert run_confined(everything(key), lambda: os.close(os.open("/proc/self/mem", os.O_RDONLY))) == "None"


@needs_landlock
@pytest.mark.skipif(os.geteuid() == 0, reason="since Linux 6.15 root reads it all the same (CAP_PERFMON)")
def test_the_environment_of_a_process_outside_cannot_be_read() -> None:
    environment = Path(f"/proc/{os.getpid()}/environ")

    assert run_confined(Confinement(blocks_signals=True), environment.read_bytes) == "PermissionError"


def use_temporary_files() -> bool:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as file:
        (Path(folder) / "a").write_text("a")
        (Path(folder) / "b").mkdir()
        (Path(folder) / "a").rename(Path(folder) / "b" / "a")
        shutil.move(Path(folder) / "b" / "a", Path(folder) / "c")
        os.link(Path(folder) / "c", Path(folder) / "b" / "d")
        file.write(b"x")
        return (Path(folder) / "b" / "d").read_text() == "a"


def reopen_memory() -> bool:
    descriptor = os.memfd_create("memory")
    with open(f"/proc/self/fd/{descriptor}", "w+b") as file:
        return file.write(b"x") == 1


def start_a_program() -> bool:
    return subprocess.run([sys.executable, "-c", "import json"], check=False).returncode == 0


def use_a_pool() -> bool:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, 2]) == [1, 2]


def resolve_and_connect() -> bool:
    with socket.create_server(("localhost", 0)) as server, socket.create_connection(server.getsockname()):
        return bool(pwd.getpwuid(0))


def use_devices() -> bool:
    with open("/dev/null", "r+b") as null, open("/dev/urandom", "rb") as random:
        return null.write(random.read(8)) == 8


@needs_landlock
@pytest.mark.parametrize(
    "act",
    [use_temporary_files, reopen_memory, start_a_program, use_a_pool, resolve_and_connect, use_devices],
)
def test_confined_handlers_can_use_ordinary_features(key: Path, act: Callable[[], bool]) -> None:
    assert run_confined(everything(key), act) == "True"


@needs_landlock
def test_an_empty_confinement_keeps_sudo_working() -> None:
    assert Confinement().enter() == UNRESTRICTED
    assert not are_new_privileges_forbidden()


@needs_landlock
def test_secrets_in_several_folders_are_hidden_and_their_siblings_are_not(tmp_path: Path) -> None:
    places = [tmp_path / "a" / "key", tmp_path / "a" / "b" / "token", tmp_path / "c" / "d" / "other"]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("secret")
        (place.parent / "beside").write_text("beside")
    confinement = Confinement(tuple(map(str, places)))

    def read_all() -> list[str]:
        texts = []
        for place in (*places, *(place.parent / "beside" for place in places)):
            try:
                texts.append(place.read_text())
            except PermissionError:
                texts.append("-")
        return texts

    assert run_confined(confinement, read_all) == str(["-"] * 3 + ["beside"] * 3)
