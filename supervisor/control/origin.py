"""Keeps out browsers that a page from elsewhere has made come here.  No I/O; it knows this machine's name.

An operator's browser reaches us from inside: by `--listen`, or by a tunnel to the control socket.  Any page that is
open in it could ask us for things by our address, or by a name of its own that is turned to us (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit


def complaint(headers: Mapping[str, str], our_name: str) -> str | None:
    """Why a request is not one of our own page's, nor of a program; None when it may be."""
    host = headers.get("Host", "")
    if not _is_ours(host, our_name):
        return "this is not the address that is listened on"
    origin = headers.get("Origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return "pages from elsewhere are not answered"
    if headers.get("Sec-Fetch-Site") in ("cross-site", "same-site") and not _is_a_link(headers):
        return "pages from elsewhere are not answered"
    return None


def _is_a_link(headers: Mapping[str, str]) -> bool:
    """Whether a link to us was followed: a page cannot read what its viewer sees then, and a form names its origin."""
    return (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")) == ("navigate", "document")


def _is_ours(header: str, listened_on: str) -> bool:
    """Whether a `Host` names us: by an address, which no name server can turn elsewhere, or by a name that is ours."""
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    if name in ("localhost", listened_on.lower(), socket.gethostname().lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
