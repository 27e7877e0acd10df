"""An HTTP proxy on the way to the server.  Pure."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Proxy:
    """`url` is without user and password, which are secrets."""

    url: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @staticmethod
    def at(address: str) -> Proxy:
        """The proxy at an address that may hold a user and a password."""
        parts = urlsplit(address)
        where = parts.netloc.rpartition("@")[2]
        return Proxy(f"{parts.scheme}://{where}", unquote(parts.username or ""), unquote(parts.password or ""))

    @property
    def name(self) -> str:
        """Host and port, for people."""
        return urlsplit(self.url).netloc

    @property
    def authorization(self) -> str | None:
        """The value of `Proxy-Authorization` (RFC 7617); None without a user."""
        if not self.user and not self.password:
            return None
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log may show."""
        encoded = self.authorization
        return () if encoded is None else (self.password, encoded.removeprefix("Basic "))
