"""How many items wait in the queue for a head, and when that is too many to take more.

All that waits becomes one epoch: the signer's marker stands behind it, and nothing may overtake it. So what
waits bounds how long the directory is without a head, and front ends bound what waits.

A revision counts events, and an event has up to 256 items. Reading the whole queue only to count would cost
as much as replaying it, so a few events are read, spread evenly over those that wait. None is read where
full events would not make up a small part of the limit, or where events of one item are above it already.
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
"""As a part of the limit: below one sixteenth nothing is read."""
RETRY_AFTER = 5.0


class Backlog:
    """What waits, as an estimate in items, and its ``limit``.

    ``committed`` gives the first queue revision that is behind the last head known here. ``look`` is for
    the thread that probes the log; the rest may be called from any thread.
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
        """How many items wait: as many as at the last look, and what this process has added since."""
        return self._seen + self._added

    @property
    def problem(self) -> str | None:
        """Why no more submissions are taken, None while they are."""
        items = self.items
        if items <= self.limit:
            return None
        return (
            f"about {items} items wait for the next head, more than the {self.limit} that may; "
            "lookups go on, submit again later"
        )

    def check(self) -> None:
        """Raise ``UnavailableError`` if no more is taken now."""
        problem = self.problem
        if problem is not None:
            raise NotNowError(problem, RETRY_AFTER)

    def added(self) -> None:
        """This process has put one more item into the queue."""
        with self._lock:
            self._added += 1

    def look(self, last: int) -> None:
        """Estimate anew; ``last`` is the queue's last revision. Raises ``UnavailableError``."""
        with self._lock:
            added = self._added
        first = self._committed()
        if self._may_be_much(last + 1 - first):
            # A replica that is being rebuilt knows old heads only.
            first = max(first, self._published())
        waiting = max(0, last + 1 - first)
        if waiting <= self.limit and self._may_be_much(waiting):
            self._mean = self._sampled(first, waiting)
        with self._lock:
            self._seen = round(waiting * self._mean)
            # What was added while this was asked may be counted twice, until the next look.
            self._added -= added

    def _may_be_much(self, events: int) -> bool:
        return events * MAX_EVENT_ITEMS * SMALL > self.limit

    def _published(self) -> int:
        """Where the last published head ends. Nothing of it is verified: it is only an estimate."""
        event = self._log.last_event(self._names.heads)
        try:
            return 0 if event is None else _head(event.data)
        except MalformedError:
            # The replica comes to it and says what is wrong with it.
            return 0

    def _sampled(self, first: int, waiting: int) -> float:
        """The mean number of items of some events among the ``waiting`` ones from ``first`` on."""
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
