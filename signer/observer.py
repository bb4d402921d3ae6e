"""Reports of the signer's work: to whoever counts it, and the progress of a rebuild to the log.

All of it is called in the signer's thread, and must neither block nor raise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from kt_es.errors import MalformedError
from kt_es.eventstore.streams import EventLog
from kt_es.formats.configs import Config
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.queue import Record


@dataclass(frozen=True, slots=True)
class Finished:
    """An epoch that is published, committed and acknowledged; ``phases`` in seconds by name."""

    head: MapHead
    items: int
    verdicts: Mapping[str, int]
    phases: Mapping[str, float]


class Observer(Protocol):
    """Times are seconds of the monotonic clock, revisions those of the queue."""

    def seen(self, last: int) -> None:
        """The queue has an event of revision ``last``."""

    def decided(self, revision: int, staged: int, at: float) -> None:
        """An event was decided; the epoch has ``staged`` items now. After an outage it is decided again."""

    def sealed(self, queue_next: int, at: float) -> None:
        """A head of this signer or another one covers the queue below ``queue_next``."""

    def finished(self, epoch: Finished) -> None: ...

    def configured(self, config: Config) -> None:
        """The intervals that are promised now."""

    def role(self, *, active: bool) -> None: ...

    def outage(self, kind: str) -> None:
        """The signer starts anew because of ``kind``: ``log``, ``disk`` or ``silence``."""


class Silent:
    """An observer that ignores everything."""

    def seen(self, last: int) -> None: ...

    def decided(self, revision: int, staged: int, at: float) -> None: ...

    def sealed(self, queue_next: int, at: float) -> None: ...

    def finished(self, epoch: Finished) -> None: ...

    def configured(self, config: Config) -> None: ...

    def role(self, *, active: bool) -> None: ...

    def outage(self, kind: str) -> None: ...


EVERY = 1.0  # seconds
# Ten thousand records a second are replayed: the clock is read once for this many.
RECORDS_A_LOOK = 256

_log = structlog.get_logger("signer")


class SignerProgress:
    """Counts replayed records and logs ``recovering`` with what is done and what is to be done."""

    def __init__(self, monotonic: Callable[[], float], records: int, goal: MapHead | None) -> None:
        """``records`` is the count in the ledger already; ``goal`` is the last published head."""
        self._monotonic = monotonic
        self._goal = goal
        self._first = self._done = records
        self._began = self._logged_at = monotonic()
        self._epoch = 0

    def record(self, record: Record) -> None:
        self._done = record.sequence + 1
        if self._done % RECORDS_A_LOOK == 0:
            self._log_progress()

    def epoch(self, head: MapHead) -> None:
        self._epoch = head.epoch
        self._log_progress()

    def end(self) -> None:
        """Log ``recovered`` if there was anything to do."""
        if self._epoch:
            _log.info(
                "recovered",
                epoch=self._epoch,
                records=self._done,
                records_per_second=self._rate(),
                **self._goal_counts(),
            )

    def _log_progress(self) -> None:
        now = self._monotonic()
        if now - self._logged_at >= EVERY:
            self._logged_at = now
            _log.info(
                "recovering", records=self._done, records_per_second=self._rate(), **self._goal_counts()
            )

    def _rate(self) -> int:
        return round((self._done - self._first) / max(self._monotonic() - self._began, 1e-6))

    def _goal_counts(self) -> dict[str, int]:
        goal = self._goal
        return {} if goal is None else {"of_records": goal.log_size, "of_epochs": goal.epoch}


def last_published(log: EventLog, stream: str) -> MapHead | None:
    """Return the last head in the log, unverified: it only shows how much there is to do."""
    event = log.last_event(stream)
    try:
        return None if event is None else SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head
    except MalformedError:
        # The replay reports what is wrong with it.
        return None
