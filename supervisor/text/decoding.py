"""Text files as editors save them.  Pure."""

from __future__ import annotations

import codecs


class NotText(ValueError):
    """The bytes are no UTF-8 text; the message is the rest of a sentence that begins with the file's name."""


def decode_text(content: bytes) -> str:
    """Return UTF-8 text, without the byte order mark that some editors put in front; raise `NotText`."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise NotText("is UTF-16 text: save it as UTF-8")
    if b"\0" in content:
        raise NotText("has NUL bytes in it: save it as UTF-8 text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotText(f"is not UTF-8 text (at byte {error.start})") from error
