"""Names of settings that are none: refused in the settings file, told of in the environment, which may be shared.

Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from supervisor.settings.option import ENVIRONMENT_PREFIX, Option
from supervisor.settings.settings import OPTIONS

_BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS.values()}
_VARIABLES = frozenset(variable for option in OPTIONS.values() for variable in option.variables)
# What Kubernetes tells every container of a service that is called mobius-supervisor.
_OF_A_SERVICE = re.compile(r"SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_\w+)?)?")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names`, which are names of options, that was perhaps meant by `name`."""
    close = difflib.get_close_matches(name.lower().replace("_", "-"), names, n=1)
    return close[0] if close else None


def misspelt_variables(environment: Mapping[str, str], passed: Iterable[str]) -> list[str]:
    """A sentence for each variable that is named as a setting and is none; those in `passed` are for the handlers."""
    strange = {name for name, value in environment.items() if value and name.startswith(ENVIRONMENT_PREFIX)}
    return [_told(name) for name in sorted(strange.difference(_VARIABLES, passed)) if not _is_of_a_service(name)]


def _told(variable: str) -> str:
    meant = nearest(variable.removeprefix(ENVIRONMENT_PREFIX), _BY_NAME)
    question = f"; is it {_BY_NAME[meant].variables[0]!r}?" if meant else ""
    return f"ignored: there is no setting {variable!r}{question}"


def _is_of_a_service(variable: str) -> bool:
    return _OF_A_SERVICE.fullmatch(variable.removeprefix(ENVIRONMENT_PREFIX)) is not None
