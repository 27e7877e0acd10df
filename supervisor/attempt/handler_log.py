"""What a job says through `context.log`, as far as there is room for it in the log.  Pure: callers say what time it is.

As with what it prints, a burst passes and a rate; the rest is dropped and counted, lest one handler's loop fills the
disk and keeps the program busy with nothing but lines.
"""

from __future__ import annotations

from supervisor.concurrency.token_bucket import TokenBucket

LOG_BURST_BYTES = 256 * 1024
"""Characters that may be said at once."""
LOG_BYTES_PER_SECOND = 64 * 1024
"""Characters a second that may be said for ever."""
LINE_OVERHEAD_BYTES = 100
"""Characters that each line counts for, beside its text: its time, its ids."""


class LogRateLimit:
    """That of one job."""

    def __init__(self, now: float) -> None:
        self._bucket = TokenBucket(rate=LOG_BYTES_PER_SECOND, burst=LOG_BURST_BYTES, now=now)
        self._dropped = 0

    def has_room(self, text: str, now: float) -> bool:
        """Whether this line may be logged; otherwise it counts as dropped."""
        if self._bucket.take(LINE_OVERHEAD_BYTES + len(text), now):
            return True
        self._dropped += 1
        return False

    def take_dropped(self) -> str | None:
        """A sentence on what was dropped since the last time, if anything was."""
        dropped, self._dropped = self._dropped, 0
        return f"[{dropped} lines of the handler dropped: more than {LOG_BYTES_PER_SECOND} characters a second]" if dropped else None
