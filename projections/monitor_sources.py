"""Where a monitor reads both logs: in the event log, or as tiles from any web server."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import certifi

from kt_es.client.elsewhere import Elsewhere
from kt_es.errors import ConfigError, MalformedError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.formats.heads import LOG_NAMES, HeadEvent, SignedMapHead
from kt_es.ledger.ledger import Ledger
from kt_es.process.outage import Outage
from projections.auditor import QueueCheck
from projections.follower import Listener, follow
from projections.monitor_metrics import MonitorMetrics
from projections.tiles.following import follow_tiles
from projections.tiles.reading import said_of
from projections.tiles.server import Tiles, TileServer

TILE_TIMEOUT = 10.0
"""Seconds for one file, at most. A monitor that is stopped waits for the file that it asked for."""


@dataclass(frozen=True, slots=True)
class TileAddress:
    """Where tiles are served: ``url`` without ``/heads`` and ``/mutations``.

    ``ca`` is the certificate of the authority of the server, None for the usual authorities. ``interval`` is
    how many seconds are between two looks, None for half the interval between heads.
    """

    url: str
    ca: Path | None = None
    interval: float | None = None

    def open(self, timeout: float = TILE_TIMEOUT) -> TileServer:
        """Return a client, which waits up to ``timeout`` seconds for a file. Raises ``ConfigError``."""
        return TileServer(self.url, timeout=timeout, verify=self._verify())

    def place(self, origin: str) -> Elsewhere:
        """Return the same server as a place that may show heads of ``origin``. Raises ``ConfigError``."""
        return Elsewhere(self.url, origin, verify=self._verify())

    def _verify(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=str(self.ca or certifi.where()))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"certificate {self.ca} cannot be used: {error}; name a PEM file with --ca"
            ) from None


Look = Callable[[MonitorMetrics], None]
"""Reports the newest head to the metrics, unverified: nothing relies on it."""


class Source(Protocol):
    """Both logs, and whoever serves them. ``name`` is what lines of the log call it."""

    name: str

    def follow(self, ledger: Ledger, listener: Listener, stop: threading.Event, outage: Outage) -> None:
        """Verify and commit every epoch as it is published, until ``stop``. Raises as ``follow`` does."""

    @contextmanager
    def looking(self) -> Iterator[Look]:
        """Connect, and yield a look at the newest head."""

    def queue_check(self, stack: ExitStack) -> QueueCheck:
        """Return a comparison with the queue; ``stack`` closes what it opens. Raises ``ConfigError``."""


class LogSource:
    """The event log."""

    name = "the event log"

    def __init__(self, connect: Callable[[], EventLog], names: StreamNames) -> None:
        self._connect = connect
        self._names = names

    def follow(self, ledger: Ledger, listener: Listener, stop: threading.Event, outage: Outage) -> None:
        follow(self._connect, self._names, ledger, listener, stop, outage=outage)

    @contextmanager
    def looking(self) -> Iterator[Look]:
        with closing(self._connect()) as log:
            yield lambda metrics: look(log, self._names.heads, metrics)

    def queue_check(self, stack: ExitStack) -> QueueCheck:
        """The check has its own connection, which is opened when the first record is compared."""
        opened: list[EventLog] = []

        def read(start: int) -> Iterator[Event]:
            if not opened:
                opened.append(self._connect())
                stack.callback(opened[0].close)
            return opened[0].read(self._names.queue, start)

        return QueueCheck(read)


class TileSource:
    """A server of tiles."""

    name = "the server"

    def __init__(
        self,
        connect: Callable[[], Tiles],
        interval: float | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._interval = interval
        self._monotonic = monotonic

    def follow(self, ledger: Ledger, listener: Listener, stop: threading.Event, outage: Outage) -> None:
        follow_tiles(
            self._connect,
            ledger,
            listener,
            stop,
            outage=outage,
            interval=self._interval,
            monotonic=self._monotonic,
        )

    @contextmanager
    def looking(self) -> Iterator[Look]:
        with closing(self._connect()) as tiles:

            def look(metrics: MonitorMetrics) -> None:
                heads, records = (said_of(tiles.checkpoint(log)) for log in LOG_NAMES)
                # The time of the newest head is in a leaf, which only the replay reads.
                metrics.published(heads, records, 0)

            yield look

    def queue_check(self, stack: ExitStack) -> QueueCheck:
        raise ConfigError(
            "the queue is not public, so it cannot be compared with tiles: remove read_queue from "
            "[monitor], or give a monitor with rights to the event log --log instead of --from"
        )


def look(log: EventLog, heads: str, metrics: MonitorMetrics) -> None:
    """Report the newest head to ``metrics``, unverified: nothing relies on it."""
    event = log.last_event(heads)
    records = timestamp = 0
    if event is not None:
        # The replay reports a head that is malformed.
        with suppress(MalformedError):
            head = SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head
            records, timestamp = head.log_size, head.timestamp
    metrics.published(0 if event is None else event.revision + 1, records, timestamp)
