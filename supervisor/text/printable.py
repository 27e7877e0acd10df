"""Makes untrusted text safe for a terminal or a log line.  Pure."""

from __future__ import annotations

import os
import re

# Control characters, and those that change the direction or the end of a line: job data could draw on the terminal.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
MAX_NAME_CHARS = 200
"""Characters of an id, or of an action, that are shown: it comes from a server, and stands in every line on its job."""
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(text: str) -> str:
    """`text` with what a terminal would act on written as JSON does: `\\n`, `\\u001b`."""
    return _UNSAFE.sub(lambda found: _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}", text)


def shortened(text: str, limit: int) -> str:
    """The first `limit` characters, the last of which says that there are more."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def shown_name(text: str) -> str:
    """An id, or the name of an action, for a table or a log line."""
    return shortened(escaped(text), MAX_NAME_CHARS)


def encodable(text: object, limit: int) -> str:
    """`text` as a plain `str` that UTF-8 can hold, cut to `limit` characters; bytes of a file's name become `\\xe9`.

    For what comes from the author of a handler, which may be a subclass of `str` or hold lone surrogates.
    """
    plain = str.__str__(text) if isinstance(text, str) else str(text)
    return _decodable(shortened(plain, limit))


def _decodable(text: str) -> str:
    try:
        return os.fsencode(text).decode("utf-8", "backslashreplace")  # what Python made of bytes that are no UTF-8
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "backslashreplace").decode()


def authority(host: str, port: int) -> str:
    """`127.0.0.1:80`, `[::1]:80`: the colons of an IPv6 address are in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
