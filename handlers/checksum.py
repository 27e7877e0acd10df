"""Key derivation from a password: one call into C that Python code cannot interrupt.

When such a job is cancelled, `Cancelled` cannot be raised before the call returns, so the worker kills the process
after `cancel_grace`.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from msgspec import Meta

from supervisor import handler


@handler("derive-key", timeout="10m", cancel_grace="500ms", idempotent=True)
def derive_key(
    password: str,
    salt: str = "mobius",
    rounds: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 600_000,
    algorithm: Literal["sha256", "sha512"] = "sha256",
) -> dict[str, str]:
    """Derive a key with PBKDF2; a hundred million rounds take about half a minute."""
    key = hashlib.pbkdf2_hmac(algorithm, password.encode(), salt.encode(), rounds)
    return {"key": key.hex()}
