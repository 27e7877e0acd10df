"""Handlers of big parameters."""

import hashlib
import os
import signal

from supervisor import Context, handler


@handler("digest")
def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@handler("digest-at-last")
def digest_at_last(context: Context, text: str) -> str:
    """Digest in the second attempt; wait in the first for whoever ends it."""
    if context.attempt == 1:
        context.emit("working", {"pids": [os.getpid()]})
        signal.pause()
    return digest(text)
