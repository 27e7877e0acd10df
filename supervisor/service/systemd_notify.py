"""Messages to systemd, one datagram each (sd_notify(3)).  Runs in the parent; does nothing outside systemd.

It never changes the environment and never raises: a manager that went away is no reason to stop jobs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

# systemd reads at once.  A send waits for a full queue only, and not for long, because the event loop waits too.
_SEND_TIMEOUT = 0.5


class Notifier:
    """Sends to `$NOTIFY_SOCKET`: a path, or an abstract name with a leading '@'."""

    def __init__(self, environment: Mapping[str, str], *, pid: int | None = None) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_interval = _watchdog_interval(environment, os.getpid() if pid is None else pid)
        """Seconds between two `watchdog` calls, half of what systemd allows; None without a watchdog."""

    def ready(self) -> None:
        """Report the end of the start, or of a reload."""
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def reloading(self) -> None:
        """Report the begin of a reload; `ready` ends it."""
        # systemd 253 and later fail the reload without the time.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def status(self, text: str) -> None:
        """Set the status line of `systemctl status`."""
        self._send(f"STATUS={' '.join(text.split())}")

    def watchdog(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Extend the time limit of a start, reload or stop to `seconds` from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")

    def _send(self, *assignments: str) -> None:
        if not self._address.startswith(("/", "\0")):
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outlet:
            outlet.settimeout(_SEND_TIMEOUT)
            outlet.connect(self._address)
            outlet.send("\n".join(assignments).encode("utf-8", "replace"))


def _watchdog_interval(environment: Mapping[str, str], pid: int) -> float | None:
    # The variables may be inherited: they count only if they name this process.
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    allowed = environment.get("WATCHDOG_USEC", "")
    if not allowed.isascii() or not allowed.isdigit() or int(allowed) == 0:
        return None
    return int(allowed) / 2_000_000
