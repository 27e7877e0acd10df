"""The order in which the program opens its parts; tests/flows run it whole."""

from __future__ import annotations

import subprocess
import sys

STARTS = """
import sys
from supervisor.service import service

LATE = {"supervisor.dialects.http.client", "supervisor.control.endpoints", "aiohttp"}
early = LATE & set(sys.modules)
service._import_the_rest()
print(sorted(early), sorted(LATE - set(sys.modules)))
"""


def test_client_and_endpoints_are_imported_while_the_zygote_imports_the_handlers() -> None:
    done = subprocess.run([sys.executable, "-c", STARTS], capture_output=True, text=True, check=True)

    assert done.stdout == "[] []\n"
