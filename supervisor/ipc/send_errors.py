"""What it means that the kernel does not send on a pipe, and how long one goes on trying.  Pure.

Not every error says that the peer is gone.  Linux counts the descriptors of a user that were sent and not yet received
(unix(7), ETOOMANYREFS): one process that sends many and has nobody receive them keeps all others of that user from
sending any, for as long as it likes.  And memory may be short for a moment.
"""

from __future__ import annotations

import errno

SEND_RETRY_DELAYS = (0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds until a message is sent again, each time that the kernel has refused it; less together than a child is given
to take up its job."""


def is_gone(error: OSError) -> bool:
    """Whether the peer is gone, or our own end: what is still to be said has no reader."""
    return isinstance(error, ConnectionError) or error.errno in (errno.ENOTCONN, errno.EBADF, errno.ENOTSOCK)


def reason(error: OSError) -> str:
    """The error in words, for a report; with what to do about it when somebody can."""
    if error.errno != errno.ETOOMANYREFS:
        return str(error.strerror)
    return (
        f"{error.strerror}: too many descriptors of this user were sent and not received yet; raise the supervisor's"
        " limit of open files (LimitNOFILE=), or see which handler sends descriptors that nobody receives"
    )
