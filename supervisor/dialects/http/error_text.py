"""Messages for failed calls, from aiohttp's errors; each names the likely cause.  Pure.

Tested by tests/dialects/http/test_client.py.
"""

from __future__ import annotations

import os
import re
import ssl
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from yarl import URL

_OPENSSL = re.compile(r"\[[A-Z: _]*\] | \(_ssl\.c:\d+\)")
"""Text that Python's `ssl` adds to messages of OpenSSL."""

_UNKNOWN_ISSUERS = (18, 19, 20, 21)
"""Codes of OpenSSL (X509_STORE_CTX_get_error(3)) for a certificate of an unknown issuer."""

_TOO_MUCH = ("Got more than", "Too many headers")
"""Beginnings of aiohttp's messages for a header that is too large."""

MAX_LOCATION_CHARS = 200
"""Characters of a redirect's address that are shown."""


def in_words(error: Exception, url: URL, seconds: float, proxy: str | None = None) -> str:
    """Describe why a call to `url` failed; `seconds` is its timeout, `proxy` the proxy's name."""
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
            hint = "; to trust your own CA, set SSL_CERT_FILE to its certificate"
            reason = found.verify_message.rstrip(".") + (hint if found.verify_code in _UNKNOWN_ISSUERS else "")
            return f"the certificate of {url.authority} is not trusted, so nothing was sent: {reason}"
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
    """Describe an invalid answer."""
    match error:
        case aiohttp.ServerDisconnectedError():
            return f"{url.authority} hung up without an answer"
        case aiohttp.ClientResponseError() if error.message.startswith(_TOO_MUCH):
            return f"{url.authority} answered with a header that is too large: check the server, and any proxy"
        case aiohttp.ClientResponseError():  # its status, 400, is aiohttp's own
            return f"{url.authority} does not speak HTTP: does --base-url name the Mobius server?"
        case aiohttp.ClientPayloadError():
            return f"the answer of {url.authority} is incomplete or damaged: check the server, and any proxy"
        case _:
            return f"no usable answer from {url.authority}: {error or type(error).__name__}"


def redirected(status: int, location: str) -> str:
    """Describe a redirect.  It is not followed, because the key would go to another host."""
    return f"{status}: redirects to {_place(location)}, which is not followed; correct --base-url"


def foreign_refusal(text: str) -> str:
    """Describe a 401 or 403 that is not in the job server's format, and therefore not about the key."""
    return f"{text}: not in the format of the job server, so perhaps from a proxy or gateway before it"


def _place(location: str) -> str:
    """Return an address without user, password and query, which may be secret."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return "an invalid address"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))[:MAX_LOCATION_CHARS]


def _reason(error: OSError) -> str:
    # Event loops reword errors of the system; after several failed addresses there is no errno.
    return os.strerror(error.errno) if error.errno else str(error)
