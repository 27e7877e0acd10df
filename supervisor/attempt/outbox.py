"""The events of one attempt that the server has not accepted yet.  Pure: no I/O, no clock.

Events keep their order and are never dropped, except that of the `progress` events that still wait only the newest
counts.  An outbox that is full says so; then its child is not read any more, and the handler's `emit` waits.
"""

from __future__ import annotations

import itertools

from supervisor.job import Event

MAX_BATCH_EVENTS = 100
"""Events in one call: a limit of the protocol."""
MAX_BATCH_BYTES = 512 * 1024
"""Payload bytes in one call: 100 events of 16 KiB would be more than some proxies let pass."""
MAX_OUTBOX_BYTES = 1024 * 1024
"""Bytes from which on the outbox counts as full."""
OVERFULL_FACTOR = 4
"""Times the limit that may wait when the handler, which is being stopped, is not to be held up."""
EVENT_OVERHEAD_BYTES = 64
"""Bytes that an event costs beside its payload; a flood of empty events must fill an outbox as well."""


class Outbox:
    """Keeps events in order, and returns them in batches."""

    def __init__(self, limit: int = MAX_OUTBOX_BYTES) -> None:
        self._limit = limit
        self._numbers = itertools.count()
        self._waiting: dict[int, Event] = {}  # by number: in order, and removable in the middle
        self._progress: int | None = None  # the newest one's
        self._batch: dict[int, Event] = {}
        self._size = 0

    def __len__(self) -> int:
        """The number of events that are not settled."""
        return len(self._waiting) + len(self._batch)

    @property
    def is_full(self) -> bool:
        return self._size >= self._limit

    @property
    def is_overfull(self) -> bool:
        """True if no further events should be added."""
        return self._size >= OVERFULL_FACTOR * self._limit

    def add(self, event: Event) -> None:
        """Add an event at the end."""
        number = next(self._numbers)
        if event.type == "progress":
            if self._progress in self._waiting:
                self._size -= _size(self._waiting.pop(self._progress))
            self._progress = number
        self._waiting[number] = event
        self._size += _size(event)

    def batch(self) -> tuple[Event, ...]:
        """The oldest events, as many as one call takes; the same ones until they are `settled`.  () when empty."""
        if not self._batch:
            room = MAX_BATCH_BYTES
            for number in list(itertools.islice(self._waiting, MAX_BATCH_EVENTS)):
                room -= _size(self._waiting[number])
                if room < 0 and self._batch:
                    break
                self._batch[number] = self._waiting.pop(number)
        return tuple(self._batch.values())

    def remove_batch(self) -> None:
        """The batch was accepted, or given up: forget it."""
        self._size -= sum(map(_size, self._batch.values()))
        self._batch.clear()

    def halve(self) -> None:
        """The batch was refused: put its second half back in front, so that the offending event is found."""
        back = {number: self._batch.pop(number) for number in list(self._batch)[len(self._batch) // 2 :]}
        for number, event in list(back.items()):
            if event.type == "progress" and number != self._progress:  # it waits again, and is out of date
                self._size -= _size(back.pop(number))
        self._waiting = back | self._waiting


def _size(event: Event) -> int:
    return len(event.payload) + EVENT_OVERHEAD_BYTES
