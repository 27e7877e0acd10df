"""Ancestor processes that have a secret in their environment are found."""

from __future__ import annotations

import os
import subprocess
import sys

SHOW = """
import os
from supervisor.linux.ancestry import ancestors_with
for secret in ("mbx_wrapped", "mbx_wrap", "mbx_other"):
    print(secret, [found.name for found in ancestors_with(secret) if found.pid != int(os.environ["TESTS"])])
"""


def test_a_wrapper_that_was_started_with_the_key_is_found() -> None:
    command = ["sh", "-c", 'env -u ANY_NAME "$0" -c "$1"; exit $?', sys.executable, SHOW]
    environment = {**os.environ, "ANY_NAME": "mbx_wrapped", "TESTS": str(os.getpid())}

    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert ended.stdout.splitlines() == ["mbx_wrapped ['sh']", "mbx_wrap []", "mbx_other []"]
