"""A host and its port, as one writes them in a URL.  Pure."""

from __future__ import annotations


def authority(host: str, port: int) -> str:
    """`127.0.0.1:80`, `[::1]:80`: the colons of an IPv6 address are in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
