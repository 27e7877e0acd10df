"""The HTTP proxy for calls to the server.  Pure."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Proxy:
    """Address and credentials of a proxy.  `url` contains neither user nor password, which are secret."""

    url: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @staticmethod
    def at(address: str) -> Proxy:
        """Parse the address of a proxy, which may contain a user and a password."""
        parts = urlsplit(address)
        where = parts.netloc.rpartition("@")[2]
        return Proxy(f"{parts.scheme}://{where}", unquote(parts.username or ""), unquote(parts.password or ""))

    @property
    def name(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.url).netloc

    @property
    def authorization(self) -> str | None:
        """The value of `Proxy-Authorization` (RFC 7617); None without a user."""
        if not self.user and not self.password:
            return None
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must not appear in a log."""
        encoded = self.authorization
        return () if encoded is None else (self.password, encoded.removeprefix("Basic "))
