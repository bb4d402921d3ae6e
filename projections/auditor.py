"""The monitor's work: replay everything, and hold the log of mutations against the queue itself.

``Replay`` finds whatever is wrong within the logs. Only who can read the queue also sees an item that
was left out, changed or put in on the way: ``QueueCheck``.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kt_es.errors import DivergenceError, KtError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.formats.heads import MapHead
from kt_es.formats.queue import Item, items_of
from kt_es.formats.records import Record
from kt_es.ledger.clock import ClockReport, silence
from kt_es.ledger.configs import check_pinned
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.replay import Replay


class QueueCheck:
    """Compares records with the queue's items, one after the other.

    Records may be observed again from an earlier one on, as after an outage. What was truncated from
    the queue behind the last head cannot be compared and is passed over.
    """

    def __init__(self, read: Callable[[int], Iterator[Event]]) -> None:
        """``read`` gives the queue's events from a revision on, to its end as it is then."""
        self.compared = 0
        self._read = read
        self._events: Iterator[Event] = iter(())
        self._event: Event | None = None
        self._left: deque[Item] = deque()
        self._truncated_to = 0

    def observe(self, record: Record) -> None:
        """Raises ``DivergenceError`` if the queue has another item at this place."""
        item = record.item
        if item.position == 0 and item.revision >= self._truncated_to:
            self._open(item.revision)
        if item.revision < self._truncated_to:
            return
        if not self._left or item != self._left[0]:
            there = f"{_place(self._left[0])} there" if self._left else "no such item"
            same = bool(self._left) and _place(item) == _place(self._left[0])
            raise DivergenceError(
                f"record {record.sequence}: says {_place(item)} of the queue, which has {there}"
                + (" with other content" if same else "")
            )
        self._left.popleft()
        self.compared += 1

    def _open(self, revision: int) -> None:
        """Go on to the event at ``revision``; the one before must have been told to its end."""
        event = self._event
        if event is not None and event.revision == revision - 1 and self._left:
            raise DivergenceError(f"the log of mutations leaves out {_place(self._left[0])} of the queue")
        if event is None or event.revision < revision:
            event = next(self._events, None)
        if event is None or event.revision != revision:
            self._events = self._read(revision)
            event = next(self._events, None)
        if event is None:
            raise DivergenceError(f"the queue has no event at revision {revision}, the log of mutations has")
        self._event = event
        if event.revision > revision:
            self._truncated_to = event.revision
        self._left = deque(items_of(event.revision, event.type, event.data))


def _place(item: Item) -> str:
    return f"item ({item.revision}, {item.position})"


@dataclass(slots=True)
class AuditReport:
    """What an audit saw, for people and for ``--json``.

    ``anchor`` is the epoch that an earlier audit had verified, 0 if there was none; ``epoch`` and
    ``timestamp`` are of the last head that is verified now.
    """

    anchor: int = 0
    epoch: int = 0
    timestamp: int = 0
    clock: ClockReport = field(default_factory=ClockReport)
    epochs: int = 0
    records: int = 0
    compared_with_queue: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)


def audit(
    log: EventLog,
    names: StreamNames,
    ledger: Ledger,
    *,
    with_queue: bool,
    now: Callable[[], int],
    progress: Callable[[MapHead], None] | None = None,
) -> AuditReport:
    """Replay both logs from the ledger's epoch to their end. ``now`` is the wall clock, in ms.

    What time says is in the report: it proves nothing, so nothing is raised.

    Raises:
        DivergenceError: the first difference, by the record or head it stands in; also that the key
            which the ledger is known by is none of the directory's.
        RollbackError, EquivocationError: the log does not hold the last head that was verified before.
        KtError: the log has no heads at all. Nothing was audited, so nothing is correct.
    """
    report = AuditReport(anchor=ledger.committed.epoch)
    check = QueueCheck(lambda start: log.read(names.queue, start)) if with_queue else None

    def observe(record: Record) -> None:
        report.records += 1
        report.verdicts[record.verdict.label] += 1
        if check is not None:
            check.observe(record)

    before = ledger.committed
    for epoch in Replay(log, names, ledger, observe).catch_up():
        report.epochs += 1
        report.clock.verified(before, ledger.committed, now())
        before = ledger.committed
        if progress is not None:
            progress(epoch.head)
    if before.epoch == 0:
        raise KtError(
            f"nothing was audited: the log has no stream {names.heads}, or the stream is empty; "
            f"check the connection string and the name of the directory"
        )
    check_pinned(ledger, in_force=True)
    report.epoch, report.timestamp = before.epoch, before.standing.timestamp
    report.clock.silence = silence(before, now())
    if check is not None:
        report.compared_with_queue = check.compared
    return report
