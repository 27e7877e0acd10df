"""Text from elsewhere made fit for a terminal or a log line.  Pure."""

from __future__ import annotations

import re

# Control characters, and those that change the direction or the end of a line: job data could draw on the terminal.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST_NAME = 200
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
    return shortened(escaped(text), LONGEST_NAME)
