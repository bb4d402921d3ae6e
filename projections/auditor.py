"""The monitor's work: replay everything, and hold the log of mutations against the queue itself.

``Replay`` finds whatever is wrong within the logs. Only who can read the queue also sees an item that
was left out, changed or put in on the way: ``QueueCheck``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kt_es.errors import DivergenceError
from kt_es.eventstore.streams import EventLog, StreamNames
from kt_es.formats.heads import MapHead
from kt_es.formats.queue import Item, items_of
from kt_es.formats.records import Record
from projections.ledger import Ledger
from projections.replay import Replay


class QueueCheck:
    """Compares records with the queue's items, one after the other, from the first record on.

    What was truncated from the queue behind the last head cannot be compared and is passed over.
    """

    def __init__(self, log: EventLog, queue: str, start: int) -> None:
        """``start`` is the queue revision of the first record that will be observed."""
        self.compared = 0
        self._log = log
        self._queue = queue
        self._items = self._read(start)
        self._next = next(self._items, None)

    def observe(self, record: Record) -> None:
        """Raises ``DivergenceError`` if the queue has another item at this place."""
        item = record.item
        if self._next is None:
            # It has grown since it was read to its end, or this item never was in it.
            self._items = self._read(item.revision)
            self._next = next(self._items, None)
        if self._next is None:
            raise DivergenceError(
                f"record {record.sequence}: says {_place(item)} of the queue, which has nothing there"
            )
        if item.revision < self._next.revision and self.compared == 0:
            return
        if item != self._next:
            raise DivergenceError(
                f"record {record.sequence}: says {_place(item)} of the queue, "
                f"which has {_place(self._next)} there"
                + (" with other content" if _place(item) == _place(self._next) else "")
            )
        self.compared += 1
        self._next = next(self._items, None)

    def _read(self, start: int) -> Iterator[Item]:
        for event in self._log.read(self._queue, start):
            yield from items_of(event.revision, event.type, event.data)


def _place(item: Item) -> str:
    return f"item ({item.revision}, {item.position})"


@dataclass(slots=True)
class AuditReport:
    """What an audit saw, for people and for ``--json``."""

    epochs: int = 0
    records: int = 0
    compared_with_queue: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    head: MapHead | None = None


def audit(
    log: EventLog,
    names: StreamNames,
    ledger: Ledger,
    *,
    with_queue: bool,
    progress: Callable[[MapHead], None] | None = None,
) -> AuditReport:
    """Replay both logs from the ledger's epoch to their end.

    Raises ``DivergenceError`` at the first difference, naming the record or head it stands in.
    """
    report = AuditReport()
    check = QueueCheck(log, names.queue, ledger.committed.queue_next) if with_queue else None

    def observe(record: Record) -> None:
        report.records += 1
        report.verdicts[record.verdict.label] += 1
        if check is not None:
            check.observe(record)

    for epoch in Replay(log, names, ledger, observe).catch_up():
        report.epochs += 1
        report.head = epoch.head
        if progress is not None:
            progress(epoch.head)
    if check is not None:
        report.compared_with_queue = check.compared
    return report
