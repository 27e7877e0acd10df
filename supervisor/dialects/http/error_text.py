"""Why a call got no answer of use, in one sentence that says where to look.  Pure: from aiohttp's errors to text."""

from __future__ import annotations

import os
import re
import ssl
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from yarl import URL

_OPENSSL = re.compile(r"\[[A-Z: _]*\] | \(_ssl\.c:\d+\)")
"""What Python's `ssl` adds to the words of OpenSSL."""

_UNKNOWN_ISSUERS = (18, 19, 20, 21)
"""Codes of OpenSSL (X509_STORE_CTX_get_error(3)) for a certificate that may be right, but comes from nobody we know."""

_TOO_MUCH = ("Got more than", "Too many headers")
"""How aiohttp begins to tell of a header that it does not read to its end."""

MAX_LOCATION_CHARS = 200
"""Characters of an address that a server names."""


def in_words(error: Exception, url: URL, seconds: float, proxy: str | None = None) -> str:
    """Why a call to `url`, which had `seconds` seconds and went through `proxy`, got no answer."""
    if proxy is None:
        return _of_call(error, url, seconds)
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the host name of the proxy {proxy} could not be resolved (DNS): {error.os_error.strerror}"
        case aiohttp.ClientProxyConnectionError():
            return f"no connection to the proxy {proxy}: {_reason(error.os_error)}"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy {proxy} does not connect to {url.authority}: {error.status} {error.message}".rstrip()
        case _:
            return f"{_of_call(error, url, seconds)}, through the proxy {proxy}"


def _of_call(error: Exception, url: URL, seconds: float) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as found):
            hint = "; a CA of your own is trusted when SSL_CERT_FILE names its certificate"
            said = found.verify_message.rstrip(".") + (hint if found.verify_code in _UNKNOWN_ISSUERS else "")
            return f"the certificate of {url.authority} is not trusted, so nothing was sent: {said}"
        case aiohttp.ClientConnectorDNSError():
            return f"the host name {url.host} could not be resolved (DNS): {error.os_error.strerror}"
        case aiohttp.ClientConnectorSSLError():
            return f"no TLS with {url.authority}, so nothing was sent: {_OPENSSL.sub('', str(error.os_error)).strip()}"
        case aiohttp.ClientConnectorError():
            return f"no connection to {url.authority}: {_reason(error.os_error)}"
        case aiohttp.ConnectionTimeoutError():
            return f"no connection to {url.authority} in time"
        case aiohttp.ClientOSError():
            return f"the connection to {url.authority} broke: {_reason(error)}"
        case TimeoutError():
            return f"no answer within {seconds:g} s"
        case _:
            return _of_no_use(error, url)


def _of_no_use(error: Exception, url: URL) -> str:
    """There is a server, and what it said was no answer."""
    match error:
        case aiohttp.ServerDisconnectedError():
            return f"{url.authority} hung up without an answer"
        case aiohttp.ClientResponseError() if error.message.startswith(_TOO_MUCH):
            return f"{url.authority} answered with a header that is too large: look at the server, and at any proxy"
        case aiohttp.ClientResponseError():  # its status, 400, is aiohttp's own
            return f"{url.authority} does not answer as HTTP wants it: does --base-url name the Mobius server?"
        case aiohttp.ClientPayloadError():
            return f"the answer of {url.authority} broke off, or is garbled: look at the server, and at any proxy"
        case _:
            return f"no answer of use from {url.authority}: {error or type(error).__name__}"


def redirected(status: int, location: str) -> str:
    """What to do when a call is answered by a redirect; it is not followed: the key would travel to another host."""
    return f"{status}: redirects to {_place(location)}, which is not followed; correct --base-url"


def foreign_refusal(said: str) -> str:
    """What to do about a 401 or 403 that is not in the job server's own form; it is no verdict on the key."""
    return f"{said}: not in the form of the job server, so perhaps from a proxy or gateway before it"


def _place(location: str) -> str:
    """An address without what may be secret: a user, a password, a query."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return "no address"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))[:MAX_LOCATION_CHARS]


def _reason(error: OSError) -> str:
    # Event loops have words of their own for what the system said; where several addresses failed there is no number.
    return os.strerror(error.errno) if error.errno else str(error)
