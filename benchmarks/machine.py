"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("aiohttp", "uvloop", "msgspec", "psutil", "numpy", "pebble", "deepnoodle-mobius", "celery", "redis")


def machine() -> str:
    """Processor, cores, memory, kernel, and how busy it is with other things; the user who measures."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    busy = f"load average {os.getloadavg()[0]:.1f} before the first round"
    return f"{_processor()}, {cores} cores, {memory:.0f} GiB, Linux {platform.release()}; {busy}; measured as {user()}"


def user() -> str:
    """Root has rights that change figures: to run before others, to look into every process."""
    return "root" if os.geteuid() == 0 else "an ordinary user"


def versions() -> str:
    """Of everything that the figures depend on."""
    return ", ".join([f"Python {platform.python_version()}", *filter(None, map(_version, PACKAGES))])


def commit() -> str:
    """What is checked out, and whether there is more than that."""
    try:
        return _git("rev-parse", "--short", "HEAD") + (" with changes" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""
