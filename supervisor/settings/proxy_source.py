"""Which proxy leads to a server, if any: from `--proxy`, or from the environment as other programs read it.  Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from supervisor.proxy import Proxy
from supervisor.settings import value_types as kinds
from supervisor.settings.resolution import ConfigError

ENVIRONMENT = "env"
OFF = "off"


def proxy_to(base_url: str, setting: str, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy for calls to `base_url`; None for none, as always for a server on this machine.

    Raises `ConfigError` when the environment names what is no HTTP proxy.
    """
    server = urlsplit(base_url)
    if setting == OFF or kinds.is_loopback(server.hostname or ""):
        return None
    if setting != ENVIRONMENT:
        return Proxy.at(setting)
    if any(_matches(entry.strip(), server) for entry in _variable("no_proxy", environment)[1].split(",")):
        return None
    for variable in (f"{server.scheme}_proxy", "all_proxy"):
        name, address = _variable(variable, environment)
        if address:
            return Proxy.at(_read(name, address))
    return None


def _read(name: str, address: str) -> str:
    try:
        return kinds.read_proxy(address if "://" in address else f"http://{address}")
    except ValueError as error:
        raise ConfigError(f"{name}: {error}; --proxy off ignores it") from error


def _variable(name: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """The name and value of a variable; programs agree that the one in small letters wins."""
    if name in environment:
        return name, environment[name].strip()
    # A web server gives a CGI program the request's header `Proxy` as HTTP_PROXY.
    is_forged = name == "http_proxy" and "REQUEST_METHOD" in environment
    return name.upper(), "" if is_forged else environment.get(name.upper(), "").strip()


def _matches(entry: str, server: SplitResult) -> bool:
    """Whether an entry of NO_PROXY means this server: `*`, a domain, an address, a network, each with a port or not."""
    host, port = (server.hostname or "").lower(), server.port or {"http": 80, "https": 443}[server.scheme]
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:  # one of them is a name, or the entry has a port
        pass
    name, colon, wanted = entry.lower().rpartition(":")
    if colon and wanted.isdigit():
        if int(wanted) != port:
            return False
    else:
        name = entry.lower()
    domain = name.strip("[]").removeprefix("*").removeprefix(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))
