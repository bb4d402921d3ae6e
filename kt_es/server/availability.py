"""Whether the event log takes submissions: it can be reached, and not too many items wait for a head.

While the log cannot be reached, submissions are refused at once instead of waiting for deadlines. A probe
that succeeds ends this.

All waiting items become one epoch: the signer's marker comes after them, and nothing may overtake it. So the
number of waiting items bounds the time without a new head, and front ends bound that number.

A revision counts events, and an event has up to 256 items. Counting the items of the whole queue would cost
as much as replaying it, so a few events are read, spread evenly over the waiting ones. None is read if even
full events would be a small part of the limit, or if the events alone are more than the limit.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

import structlog

from kt_es.errors import AccessDeniedError, MalformedError, UnavailableError
from kt_es.eventstore.streams import EventLog, StreamNames
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.formats.queue import MAX_EVENT_ITEMS, items_of
from kt_es.process.outage import Outage
from kt_es.server.privacy import RETRY_AFTER, Denials
from kt_es.server.responses import AWAY, NotNowError, denial

AWAY_INTERVAL = 0.5
PROBE_INTERVAL = 2.0

MAX_BACKLOG = 200_000
SAMPLES = 16
SMALL = 16
"""Nothing is read while full events would be less than one sixteenth of the limit."""

_AWAY = f"{AWAY}; the log of this front end says why"

_LOG = structlog.get_logger("kt_es.server")


class LogConnections:
    """Makes clients of the log with ``connect``. Closing ends the calls that hang in any of them."""

    def __init__(self, connect: Callable[[], EventLog]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._sharing = threading.Lock()
        self._shared: EventLog | None = None
        self._open: weakref.WeakSet[EventLog] = weakref.WeakSet()
        self._closed = False

    def connect(self) -> EventLog:
        """Return another client. The caller closes it."""
        log = self._connect()
        with self._lock:
            if not self._closed:
                self._open.add(log)
                return log
        log.close()
        raise NotNowError("the front end is stopping")

    def shared(self) -> EventLog:
        """Return the client of all requests. The first call connects, so that lookups do not wait for it."""
        with self._sharing:
            if self._shared is None:
                self._shared = self.connect()
            return self._shared

    def close(self) -> None:
        with self._lock:
            self._closed = True
            logs = list(self._open)
        for log in logs:
            log.close()


class LogWatch:
    """The state of the event log. Before the first probe the log counts as unreachable.

    ``run`` probes, in a thread of its own; any thread may call the rest. Each successful probe calls
    ``looked`` with the last revision of ``stream``. ``denials`` holds the missing rights, and each probe asks
    for them again. ``clock`` is monotonic.
    """

    def __init__(
        self,
        log: Callable[[], EventLog],
        stream: str,
        looked: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._stream = stream
        self._looked = looked
        self.denials = Denials(log, stream)
        self._outage = Outage("requests", _LOG, clock)
        # The last call that failed, None after a success. Before the first call there is an outage.
        self._failed: UnavailableError | AccessDeniedError | None = NotNowError(
            "the event log was not reached yet"
        )

    @property
    def problem(self) -> str | None:
        """The reason why the log cannot be read, in words for clients; None while it can be read."""
        failed = self._failed
        match failed:
            case None:
                return None
            case AccessDeniedError():
                return denial(failed)
            case NotNowError():
                return str(failed)
        return _AWAY

    def check(self) -> None:
        """Raise ``UnavailableError`` while the log cannot be reached or denies the queue to submissions."""
        failed = self._failed
        if failed is not None:
            problem = denial(failed) if isinstance(failed, AccessDeniedError) else AWAY
            raise NotNowError(f"{problem}; submit again later")
        self.denials.check()

    def check_readable(self) -> None:
        """Raise ``UnavailableError`` for a lookup that needs an opening while the log cannot be reached."""
        if isinstance(self._failed, UnavailableError):
            raise NotNowError(f"{AWAY}, and the opening of this entry is not in memory; try again later")

    def failed(self, error: UnavailableError | AccessDeniedError) -> None:
        """Note that a call failed: the log counts as unreachable until a probe succeeds."""
        self._outage.failed(str(error))
        self._failed = error

    def probe(self) -> None:
        """Send the log a small request, and note whether it answers."""
        try:
            self._looked(self._log().last_revision(self._stream))
            self.denials.probe()
        except (AccessDeniedError, UnavailableError) as error:
            if isinstance(error, AccessDeniedError):
                self.denials.denied(error)
            self.failed(error)
        else:
            self._outage.over()
            self._failed = None

    def run(self, stop: threading.Event) -> None:
        """Probe until ``stop``: every 2 seconds, and every half second while the log cannot be reached."""
        self.probe()
        probed = time.monotonic()
        while not stop.wait(AWAY_INTERVAL):
            is_well = self.problem is None and self.denials.problem is None
            if not is_well or time.monotonic() - probed >= PROBE_INTERVAL:
                self.probe()
                probed = time.monotonic()


class Backlog:
    """An estimate of the waiting items, and their ``limit``.

    ``committed`` gives the first queue revision after the last head known here. Only the thread that probes
    the log calls ``look``; any thread may call the rest.
    """

    def __init__(
        self, log: Callable[[], EventLog], names: StreamNames, limit: int, committed: Callable[[], int]
    ) -> None:
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
        """The reason why no more submissions are taken; None while submissions are taken."""
        items = self.items
        if items <= self.limit:
            return None
        return (
            f"about {items} items wait for the next head, more than the {self.limit} that may; "
            "submit again later"
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
        """Return the end of the last published head in the queue. An estimate needs no verification."""
        event = self._log().last_event(self._names.heads)
        try:
            if event is None:
                return 0
            return SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head.queue_next
        except MalformedError:
            # The replica will report what is wrong with this head.
            return 0

    def _sampled(self, first: int, waiting: int) -> float:
        """Return the mean number of items in some of the ``waiting`` events from ``first`` on."""
        samples = min(SAMPLES, waiting)
        counts = [
            len(items_of(event.revision, event.type, event.data))
            for sample in range(samples)
            for event in self._log().read(
                self._names.queue, first + (2 * sample + 1) * waiting // (2 * samples), 1
            )
        ]
        return sum(counts) / len(counts) if counts else 1.0
