"""Whether a front end can read what lookups need from the shared store: noticed without a lookup."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from kt_es.errors import UnavailableError, UnverifiedRowError
from kt_es.ledger.clock import spoken
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.present import check_present
from kt_es.process.outage import Backoff, Lasting, Outage
from kt_es.server.responses import STORE_AWAY

PROBE_INTERVAL = 3.0
"""Seconds between two probes while the store works. While it cannot be used, pauses grow from 0.5 to 5 s."""

_LOG = structlog.get_logger("kt_es.server")


class StoreWatch:
    """Probes the shared store now and then, by ``check_present``.

    ``run`` probes in a thread of its own; any thread may ask for ``problem`` and ``rows``. Without a shared
    store both are always None, and ``run`` is not needed. ``clock`` is monotonic.

    Attributes:
        rows: Set while rows that lookups of the present epoch need are missing or wrong.
    """

    def __init__(self, ledger: Ledger, keyspace: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._keyspace = keyspace
        self._clock = clock
        self._outage = Outage("store", _LOG, clock)
        self.rows: Lasting | None = None
        # When a probe failed for the first time, None after a success. Owned by the thread of ``run``.
        self._since: float | None = None

    @property
    def problem(self) -> str | None:
        """The reason why lookups may fail, in words for clients; None while the shared store can be used."""
        since = self._since
        if since is None:
            return None
        lasts = f", for {spoken(round(1000 * (self._clock() - since)))}"
        go_on = "; lookups of what is in memory go on" if self._ledger.committed.epoch else ""
        return (
            f"{STORE_AWAY} (keyspace {self._keyspace}{lasts}){go_on}: look at its nodes, and for the reason "
            "at the log of this front end"
        )

    def probe(self) -> None:
        """Check the sample, and note whether the store answers and has the rows."""
        try:
            check_present(self._ledger)
        except UnavailableError as error:
            self._outage.failed(error)
            self._since = self._clock() if self._since is None else self._since
        except UnverifiedRowError as error:
            self._outage.failed(error)
            self._since = None
            self.rows = Lasting(str(error), self._clock() if self.rows is None else self.rows.since)
        else:
            self._outage.over()
            self._since = self.rows = None

    def run(self, stop: threading.Event) -> None:
        """Probe until ``stop``."""
        backoff, pause = Backoff(0.5, 5.0), 0.0
        while not stop.wait(pause):
            self.probe()
            if self._since is None:
                backoff.reset()
                pause = PROBE_INTERVAL
            else:
                pause = backoff.pause()
