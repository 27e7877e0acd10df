"""Keeps out browsers that a page from elsewhere has made come here.  No I/O; it knows this machine's name.

An operator's browser reaches us from inside: by `--listen`, or by a tunnel to the control socket.  Any page that is
open in it could ask us for things by our address, or by a name of its own that is turned to us (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

ANY_NAME = "*"
"""Among the names that are ours: probes may come by any name."""


def host_error(headers: Mapping[str, str], our_names: Collection[str], *, is_probe: bool = False) -> str | None:
    """Why a request is not one of our own page's, nor of a program; None when it may be.

    A probe changes nothing and shows no secret: it may lack a `Host`, as every browser sends one, and with `ANY_NAME`
    it may have any.
    """
    host = headers.get("Host", "")
    is_plain = is_probe and ("Host" not in headers or ANY_NAME in our_names)
    if not is_plain and not _is_ours(host, our_names):
        return "this is not the address that is listened on; --listen-name allows another name"
    origin = headers.get("Origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return "pages from elsewhere are not answered"
    if headers.get("Sec-Fetch-Site") in ("cross-site", "same-site") and not _is_a_link(headers):
        return "pages from elsewhere are not answered"
    return None


def _is_a_link(headers: Mapping[str, str]) -> bool:
    """Whether a link to us was followed: a page cannot read what its viewer sees then, and a form names its origin."""
    return (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")) == ("navigate", "document")


def _is_ours(header: str, our_names: Collection[str]) -> bool:
    """Whether a `Host` names us: by an address, which no name server can turn elsewhere, or by a name that is ours."""
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    name = name.rstrip(".")  # a name may be written with the root of all domains
    if name in ("localhost", socket.gethostname().lower()) or name in our_names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
