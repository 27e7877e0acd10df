"""Errors of a send on a pipe: which of them are final, and the delays between retries.  Pure.

Not every error means that the peer is gone.  Linux counts the descriptors of a user that were sent and not yet received
(unix(7), ETOOMANYREFS): one process that sends many without a receiver blocks all descriptor sends of
that user until it stops.  And memory may be short for a moment.
"""

from __future__ import annotations

import errno

SEND_RETRY_DELAYS = (0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds before each retry of a refused message; their sum is below the time that a child has to read its order."""


def is_gone(error: OSError) -> bool:
    """Return True if the peer has gone or this end is closed: no retry can succeed."""
    return isinstance(error, ConnectionError) or error.errno in (errno.ENOTCONN, errno.EBADF, errno.ENOTSOCK)


def reason(error: OSError) -> str:
    """Return the error as a sentence, with advice for the operator where there is some."""
    if error.errno != errno.ETOOMANYREFS:
        return str(error.strerror)
    return (
        f"{error.strerror}: too many descriptors of this user were sent and not received yet; raise the supervisor's"
        " limit of open files (LimitNOFILE=), or see which handler sends descriptors that nobody receives"
    )
