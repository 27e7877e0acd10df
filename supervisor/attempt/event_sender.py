"""The events of one attempt on their way: taken from its child, kept in the outbox, sent in batches until accepted.

Runs in the parent.  It reads the child no faster than the server and the loop can take it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from supervisor.attempt.lease import Lease
from supervisor.attempt.outbox import Outbox
from supervisor.concurrency.backoff import Backoff
from supervisor.concurrency.helpers import HelperTasks
from supervisor.concurrency.token_bucket import TokenBucket
from supervisor.job import Event, Fence
from supervisor.job_server import JobServer, KeyRefused, RateLimited, RequestRejected, StaleFence, Unavailable
from supervisor.stats import Stats

EVENT_RATE = 50_000.0
"""Events a second that are taken from one child, so that a flood leaves the loop to heartbeats and to other jobs."""
EVENT_BURST = 10_000.0


class EventSource(Protocol):
    """The child from which events come; the parent can stop reading it for a while."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class EventSender:
    """Created with an attempt's first event; its task ends with the attempt."""

    def __init__(
        self,
        fence: Fence,
        *,
        lease: Lease,
        server: JobServer,
        stats: Stats,
        tap: EventSource,
        beside: HelperTasks,
        log: Any,
        now: Callable[[], float],
    ) -> None:
        self._fence = fence
        self._lease = lease
        self._server = server
        self._stats = stats
        self._source = tap
        self._helpers = beside
        self._log = log
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox()
        self._bucket = TokenBucket(rate=EVENT_RATE, burst=EVENT_BURST, now=self._loop.time())
        self._read_on_timer: asyncio.TimerHandle | None = None
        self._sender: asyncio.Task[None] | None = None
        self._has_dropped = False
        self._moved_at = now()  # when the server took events last, or the first ones came

    @property
    def is_idle(self) -> bool:
        """True if no event waits or is being sent."""
        return self._sender is None or self._sender.done()

    @property
    def is_full(self) -> bool:
        """True if the outbox is full."""
        return self._outbox.is_full

    def add(self, event: Event, *, hold_back: bool) -> None:
        """Send `event` soon; `hold_back` reads the child no further while that is more than anybody can take.

        A child that is read on all the same loses what it says beyond that.
        """
        if self._outbox.is_overfull:
            self._drop()
            return
        self._outbox.add(event)
        if self.is_idle:
            self._moved_at = self._now()
            self._sender = self._helpers.start(self._send)
        if hold_back:
            self._apply_backpressure()

    async def flush(self) -> None:
        """Wait until the sender is idle or aborted."""
        if self._sender is not None:
            await asyncio.wait([self._sender])

    @property
    def undelivered(self) -> int:
        """The number of events that the server has not accepted."""
        return 0 if self.is_idle else len(self._outbox)

    def has_stalled(self, patience: float) -> bool:
        """True if events wait, and the server has accepted none for `patience` seconds."""
        return not self.is_idle and self._now() - self._moved_at >= patience

    def abort(self, why: str) -> None:
        """Drop all events, and send nothing more."""
        self._source.resume()  # the child may soon run another job
        if lost := self.undelivered:
            self._stats.events_dropped += lost
            self._log.warning("events dropped: the server has not taken them", count=lost, reason=why)
        if self._sender is not None:
            self._sender.cancel()

    def _drop(self) -> None:
        if not self._has_dropped:
            self._log.warning("events are dropped: the handler is being stopped, and says more than can be kept")
        self._has_dropped = True
        self._stats.events_dropped += 1

    def _apply_backpressure(self) -> None:
        """Stop reading the child while the outbox is full, or events come faster than the loop can take them."""
        if self._outbox.is_full:
            self._source.pause()
        elif (debt := self._bucket.overdraw(1, self._loop.time())) > 0 and self._read_on_timer is None:
            self._source.pause()
            self._read_on_timer = self._loop.call_later(debt, self._end_backpressure)

    def _end_backpressure(self) -> None:
        self._read_on_timer = None
        if not self._outbox.is_full:
            self._source.resume()

    async def _send(self) -> None:
        """Send batches until the outbox is empty."""
        backoff = Backoff(0.2, 5.0)
        while batch := self._outbox.batch():
            self._lease.check(self._now())  # after a suspend, before any call to the server
            try:
                await self._server.send_events(self._fence, batch)
            except RateLimited as limited:
                await asyncio.sleep(max(limited.retry_after, backoff.next()))
            except (Unavailable, KeyRefused) as error:
                self._log.warning("events were not accepted, they will be sent again", error=str(error))
                await asyncio.sleep(backoff.next())
            except StaleFence as stale:
                self._lease.renewal_refused(str(stale))
                self._outbox.remove_batch()
            except RequestRejected as rejected:
                self._drop_rejected(batch, rejected)
            else:
                self._stats.events_sent += len(batch)
                self._moved_at = self._now()
                backoff.reset()
                self._outbox.remove_batch()
            if self._read_on_timer is None:
                self._end_backpressure()

    def _drop_rejected(self, batch: tuple[Event, ...], rejected: RequestRejected) -> None:
        if len(batch) > 1:
            self._outbox.halve()
            return
        self._stats.events_dropped += 1
        self._log.warning("event dropped: the server refuses it", type=batch[0].type, error=str(rejected))
        self._outbox.remove_batch()
