"""The server, project and key of the commands that are clients of the server.

Tested by tests/cli/test_main.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from supervisor.cli.options import values_of
from supervisor.proxy import Proxy
from supervisor.settings import resolution as config
from supervisor.settings.credential import Credential, CredentialSource
from supervisor.settings.proxy_source import proxy_to

ACCOUNT_OPTIONS = ("base_url", "project", "api_key_file", "allow_http", "proxy")
"""The settings that these commands need."""


def account(names: Iterable[str], answers: Mapping[str, Any]) -> tuple[dict[str, Any], Credential]:
    """Return the values of `names`, which include the server's address and the project, and the key."""
    values = values_of(names, answers)
    credential = _credential(answers)
    config.complete(values, has_key=credential is not None, key_project=credential.project if credential else None)
    assert credential is not None  # otherwise `complete` has raised `ConfigError`
    return values, credential


def proxy_for(values: Mapping[str, Any]) -> Proxy | None:
    """Return the proxy for the server, if any."""
    return proxy_to(values["base_url"], values["proxy"], os.environ)


def _credential(answers: Mapping[str, Any]) -> Credential | None:
    """Return the key; None without a source, which the caller reports with other gaps."""
    source = CredentialSource(values_of(["api_key_file"], answers)["api_key_file"], os.environ)
    return source.read() if source.is_given else None
