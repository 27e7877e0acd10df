"""Which of the supervisor's environment variables a zygote, and so every child, is given.  Pure.

An allow-list: the credential, `NOTIFY_SOCKET`, `WATCHDOG_*` and all that systemd or a shell put there stay out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# fmt: off
_ALLOWED = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP", "TERM", "HOSTNAME",
    "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES",
})
# fmt: on
_ALLOWED_PREFIXES = ("LC_", "PYTHON", "XDG_")
_NEVER = frozenset({"MOBIUS_API_KEY", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY"})


def child_environment(environment: Mapping[str, str], passed: Iterable[str]) -> dict[str, str]:
    """What a zygote gets of `environment`: the allow-list and the names in `passed`, never a credential."""
    wanted = _ALLOWED.union(passed) - _NEVER
    return {
        name: value
        for name, value in environment.items()
        if name in wanted or (name.startswith(_ALLOWED_PREFIXES) and name not in _NEVER)
    }
