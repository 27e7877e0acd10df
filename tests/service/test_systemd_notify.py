from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor.service.systemd_notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        yield receiver


def test_each_notification_is_one_datagram(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})

    notifier.ready()
    notifier.stopping()
    notifier.watchdog()
    notifier.status("8 children:\n5 busy")
    notifier.extend_timeout(1.5)

    assert [manager.recv(4096) for _ in range(5)] == [
        b"READY=1",
        b"STOPPING=1",
        b"WATCHDOG=1",
        b"STATUS=8 children: 5 busy",
        b"EXTEND_TIMEOUT_USEC=1500000",
    ]


def test_reloading_carries_the_monotonic_time(manager: socket.socket) -> None:
    before = time.monotonic()

    Notifier({"NOTIFY_SOCKET": manager.getsockname()}).reloading()

    first, second = manager.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) / 1e6 + 1e-6 <= time.monotonic() + 1e-6


def test_an_abstract_name_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("")  # the kernel picks a free abstract name
        receiver.settimeout(5)

        Notifier({"NOTIFY_SOCKET": "@" + receiver.getsockname()[1:].decode()}).ready()

        assert receiver.recv(4096) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify", "@nobody-listens", "vsock:2:1", "/" + "x" * 200])
def test_without_a_manager_nothing_happens(address: str | None) -> None:
    notifier = Notifier({} if address is None else {"NOTIFY_SOCKET": address})

    notifier.ready()
    notifier.status("fine")


def test_a_manager_that_does_not_read_holds_nobody_up_for_long(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        filler.connect(manager.getsockname())
        with suppress(BlockingIOError):
            while filler.send(b"x"):
                pass

    before = time.monotonic()
    notifier.watchdog()

    assert time.monotonic() - before < 3


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "71"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "72"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_needed(environment: dict[str, str], interval: float | None) -> None:
    assert Notifier(environment, pid=71).watchdog_interval == interval
