"""How far a rebuild from the logs is, told about once a second: a million records take minutes."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from kt_es.errors import MalformedError
from kt_es.eventstore.streams import EventLog
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.records import Record

EVERY = 1.0  # seconds
# The clock is not asked for each of ten thousand records a second.
RECORDS_A_LOOK = 256

_log = structlog.get_logger("signer")


class SignerProgress:
    """Counts replayed records and logs ``recovering`` with what is done and what is to be done."""

    def __init__(self, monotonic: Callable[[], float], records: int, goal: MapHead | None) -> None:
        """``records`` are in the ledger already; ``goal`` is the last head that is published."""
        self._monotonic = monotonic
        self._goal = goal
        self._first = self._done = records
        self._began = self._told = monotonic()
        self._epoch = 0

    def record(self, record: Record) -> None:
        self._done = record.sequence + 1
        if self._done % RECORDS_A_LOOK == 0:
            self._tell()

    def epoch(self, head: MapHead) -> None:
        self._epoch = head.epoch
        self._tell()

    def end(self) -> None:
        """Log ``recovered`` if there was anything to do."""
        if self._epoch:
            _log.info(
                "recovered",
                epoch=self._epoch,
                records=self._done,
                records_per_second=self._rate(),
                **self._of(),
            )

    def _tell(self) -> None:
        now = self._monotonic()
        if now - self._told >= EVERY:
            self._told = now
            _log.info("recovering", records=self._done, records_per_second=self._rate(), **self._of())

    def _rate(self) -> int:
        return round((self._done - self._first) / max(self._monotonic() - self._began, 1e-6))

    def _of(self) -> dict[str, int]:
        goal = self._goal
        return {} if goal is None else {"of_records": goal.log_size, "of_epochs": goal.epoch}


def last_published(log: EventLog, stream: str) -> MapHead | None:
    """The last head in the log as it stands there, unverified: only to tell how much there is to do."""
    event = log.last_event(stream)
    try:
        return None if event is None else SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head
    except MalformedError:
        # The replay comes to it and says what is wrong with it.
        return None
