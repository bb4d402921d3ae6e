"""An estimate of the items that wait in the queue for a head, and the limit above which no more are taken.

All waiting items become one epoch: the signer's marker comes after them, and nothing may overtake it. So the
number of waiting items bounds the time without a new head, and front ends bound that number.

A revision counts events, and an event has up to 256 items. Counting the items of the whole queue would cost
as much as replaying it, so a few events are read, spread evenly over the waiting ones. None is read if even
full events would be a small part of the limit, or if the events alone are more than the limit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from kt_es.errors import MalformedError
from kt_es.eventstore.streams import StreamNames
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.formats.queue import MAX_EVENT_ITEMS, items_of
from kt_es.server.late import RequestLog
from kt_es.server.problems import NotNowError

MAX_BACKLOG = 200_000
SAMPLES = 16
SMALL = 16
"""Nothing is read while full events would be less than one sixteenth of the limit."""
RETRY_AFTER = 5.0


class Backlog:
    """An estimate of the waiting items, and their ``limit``.

    ``committed`` gives the first queue revision after the last head known here. Only the thread that probes
    the log calls ``look``; any thread may call the rest.
    """

    def __init__(self, log: RequestLog, names: StreamNames, limit: int, committed: Callable[[], int]) -> None:
        self.limit = limit
        self._log = log
        self._names = names
        self._committed = committed
        self._lock = threading.Lock()
        self._mean = 1.0
        self._seen = 0
        self._added = 0

    @property
    def items(self) -> int:
        """The number of waiting items: at the last look, and added by this process since."""
        return self._seen + self._added

    @property
    def problem(self) -> str | None:
        """The reason why no more submissions are taken; None while they are."""
        items = self.items
        if items <= self.limit:
            return None
        return (
            f"about {items} items wait for the next head, more than the {self.limit} that may; "
            "lookups go on, submit again later"
        )

    def check(self) -> None:
        """Raise ``UnavailableError`` if no more submissions are taken."""
        problem = self.problem
        if problem is not None:
            raise NotNowError(problem, RETRY_AFTER)

    def added(self) -> None:
        """Count one more item, which this process has put into the queue."""
        with self._lock:
            self._added += 1

    def look(self, last: int) -> None:
        """Estimate again. ``last`` is the last revision of the queue. Raises ``UnavailableError``."""
        with self._lock:
            added = self._added
        first = self._committed()
        if self._may_be_much(last + 1 - first):
            # A replica that is being rebuilt knows only old heads.
            first = max(first, self._published())
        waiting = max(0, last + 1 - first)
        if waiting <= self.limit and self._may_be_much(waiting):
            self._mean = self._sampled(first, waiting)
        with self._lock:
            self._seen = round(waiting * self._mean)
            # Items that were added during this look may count twice until the next one.
            self._added -= added

    def _may_be_much(self, events: int) -> bool:
        return events * MAX_EVENT_ITEMS * SMALL > self.limit

    def _published(self) -> int:
        """The end of the last published head in the queue. An estimate needs no verification."""
        event = self._log.last_event(self._names.heads)
        try:
            return 0 if event is None else _head(event.data)
        except MalformedError:
            # The replica will report what is wrong with this head.
            return 0

    def _sampled(self, first: int, waiting: int) -> float:
        """The mean number of items in some of the ``waiting`` events from ``first`` on."""
        samples = min(SAMPLES, waiting)
        counts = [
            len(items_of(event.revision, event.type, event.data))
            for sample in range(samples)
            for event in self._log.read(
                self._names.queue, first + (2 * sample + 1) * waiting // (2 * samples), 1
            )
        ]
        return sum(counts) / len(counts) if counts else 1.0


def _head(data: bytes) -> int:
    return SignedMapHead.decode(HeadEvent.decode(data).smh_bytes).head.queue_next
