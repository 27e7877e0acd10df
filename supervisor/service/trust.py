"""Check, at the start, which files of the program other users may change.  Runs in the parent.

Tested by tests/flows/test_secrets.py.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import structlog

from supervisor.linux import confinement, permissions
from supervisor.linux.ancestry import ancestors_with
from supervisor.linux.confinement import Confinement
from supervisor.settings.credential import CredentialSource
from supervisor.settings.settings import Settings

log = structlog.get_logger("service")


def warn(settings: Settings, source: CredentialSource, settings_file: Path | None) -> None:
    """Warn of files that other users may change, and of handlers that run as root."""
    if os.geteuid() == 0:
        log.warning("handlers run as root", advice="run the service as a user of its own, as `unit` prints it")
    named = (settings_file, settings.listen_token_file, source.file, settings.state_dir)
    above_handlers = (folder.absolute().parent for folder in settings.handlers)  # the zygote looks at these themselves
    for sentence in permissions.warnings_of([*filter(None, named), *above_handlers]):
        log.warning(sentence)


def confinement_of(settings: Settings, source: CredentialSource, settings_file: Path | None) -> Confinement:
    """Return the confinement of handlers; warn of secrets that it cannot hide."""
    ancestors = ancestors_with(source.read().token)
    for ancestor in ancestors:
        log.warning(
            "API key in the environment of a process above the supervisor",
            pid=ancestor.pid,
            name=ancestor.name,
            advice="start the supervisor with `exec`, or give the key by --api-key-file",
        )
    files = [*source.secret_files, settings.listen_token_file, settings_file if _is_private(settings_file) else None]
    seen = confinement.probe(filter(None, files), has_exposed_key=bool(ancestors))
    for sentence in confinement.missing_protections(seen):
        log.info("handlers are confined in part", reason=sentence)
    return confinement.choose(seen)


def _is_private(settings_file: Path | None) -> bool:
    """True if the operator keeps the settings from other users, as a file with a proxy's password in it."""
    with suppress(OSError):
        if settings_file is not None:
            return not settings_file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
    return False
