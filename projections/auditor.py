"""The work of monitor and audit: they replay both logs, compare them with the queue, and watch the time.

``Replay`` finds every fault within the logs. ``QueueCheck`` finds an item of the queue that was left out,
changed or inserted. It needs the right to read the queue.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from kt_es.errors import DivergenceError, KtError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.formats.heads import MapHead
from kt_es.formats.queue import Item, Record, items_of
from kt_es.ledger import clock
from kt_es.ledger.clock import SLACK, ClockReport, silence, spoken
from kt_es.ledger.ledger import Ledger, check_pinned
from kt_es.ledger.replay import Replay, ReplayedEpoch
from kt_es.ledger.rows import Committed
from kt_es.ledger.verifiers import Verifiers

# Seconds for which a replay without a step still counts as at work, and so does a start.
PATIENCE = SLACK / 1000


class Alarm(StrEnum):
    """Kinds of alarm that prove nothing: about the timestamps of heads, and about who vouches for them."""

    SILENCE = "silence"
    FUTURE = "future-head"
    GAP = "gap"
    QUORUM = "quorum"


@dataclass(frozen=True, slots=True)
class Notice:
    """An alarm that begins (``raised``) or ends."""

    alarm: Alarm
    raised: bool
    sentence: str


class Vigil:
    """Watches the time since the last head. Safe for threads: one replays, and one looks at the clock.

    Two threads, because silence must be noticed while a subscription hangs. ``now`` is the wall clock in ms,
    ``monotonic`` in seconds. ``notify`` gets each notice in the thread that found it, and must not call back.
    """

    def __init__(
        self, now: Callable[[], int], monotonic: Callable[[], float], notify: Callable[[Notice], None]
    ) -> None:
        self._now = now
        self._monotonic = monotonic
        self._notify = notify
        self._lock = threading.Lock()
        # All guarded by the lock.
        self._committed: Committed | None = None
        self._begun = now()
        self._at_work_until = monotonic() + PATIENCE
        self._is_current = False
        self._since: dict[Alarm, int] = {}

    def resumed(self, committed: Committed) -> None:
        """Begin with ``committed``, which was verified before the process started."""
        with self._lock:
            self._committed = committed

    def at_work(self) -> None:
        """Note a step of the replay: an old head is now explained by a replay that is behind."""
        # One assignment, without the lock, because every record calls it.
        self._at_work_until = self._monotonic() + PATIENCE

    def waits(self) -> None:
        """Count silence from now on: everything published is verified, or the log cannot be reached."""
        self._is_current = True
        self._at_work_until = self._monotonic()

    def verified(self, committed: Committed) -> None:
        """Note that the next epoch is verified, with the state ``committed``."""
        now = self._now()
        if self._is_current:
            # Heads arrive as they are published, so an old head is late: no replay is behind.
            self._at_work_until = self._monotonic()
        with self._lock:
            before, self._committed = self._committed, committed
            between = None if before is None else clock.gap(before, committed)
            if between is None:
                self._ends(Alarm.GAP, now, "heads come in time again")
            else:
                self._begins(
                    Alarm.GAP,
                    now,
                    f"gap between heads: that of epoch {between.epoch} came {spoken(between.length)} after "
                    f"the one before; max_interval was {spoken(between.promised)}",
                )
        self.look()

    def look(self) -> str:
        """Compare the latest verified head with the clock; return the sentence about silence, if any."""
        now = self._now()
        with self._lock:
            self._look_at_future(now)
            return self._look_at_silence(now)

    def _look_at_future(self, now: int) -> None:
        ahead = None if self._committed is None else clock.future(self._committed, now)
        if ahead is None:
            self._ends(Alarm.FUTURE, now, "the latest head is not in the future any more")
        else:
            self._begins(
                Alarm.FUTURE,
                now,
                f"the head of epoch {ahead.epoch} is {spoken(ahead.ahead)} later than this machine's clock",
            )

    def _look_at_silence(self, now: int) -> str:
        committed = self._committed
        if committed is not None and committed.epoch:
            lasts, since = clock.silence(committed, now), f"epoch {committed.epoch}"
        else:
            lasts, since = now - self._begun, "the start of this monitor, and none was seen before"
            lasts = lasts if lasts > clock.UNKNOWN_INTERVAL + SLACK else 0
        sentence = f"no head since {since}: silence for {spoken(lasts)}"
        if not lasts:
            self._ends(Alarm.SILENCE, now, "heads return")
        elif self._monotonic() >= self._at_work_until:
            self._begins(Alarm.SILENCE, now, sentence, lasts)
        return sentence if Alarm.SILENCE in self._since else ""

    def _begins(self, alarm: Alarm, now: int, sentence: str, before: int = 0) -> None:
        if alarm not in self._since:
            self._since[alarm] = now - before
            self._notify(Notice(alarm, raised=True, sentence=sentence))

    def _ends(self, alarm: Alarm, now: int, sentence: str) -> None:
        since = self._since.pop(alarm, None)
        if since is not None:
            lasted = spoken(max(0, now - since))
            self._notify(Notice(alarm, raised=False, sentence=f"{sentence}; it lasted {lasted}"))


class QueueCheck:
    """Compares records with the queue's items, one after the other.

    Records may be observed again from an earlier one on, as after an outage. Items that were truncated from
    the queue cannot be compared and are skipped. ``read`` returns the queue's events from a revision on.
    """

    def __init__(self, read: Callable[[int], Iterator[Event]]) -> None:
        self.compared = 0
        self._read = read
        self._events: Iterator[Event] = iter(())
        self._event: Event | None = None
        self._left: deque[Item] = deque()
        self._truncated_to = 0

    def observe(self, record: Record) -> None:
        """Raise ``DivergenceError`` if the queue has another item in the place that ``record`` names."""
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
        """Read the event at ``revision``. Every item of the previous event must have been observed."""
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
    """The result of an audit.

    ``anchor`` is the epoch that an earlier audit had verified, 0 if there was no earlier audit. ``epoch`` and
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
    """Replay both logs in the event log from the ledger's epoch to their end, as ``audit_epochs`` does.

    Args:
        log: The event log.
        names: The names of the directory's streams.
        ledger: The state that earlier audits have verified; the replay continues it.
        with_queue: Compare the records with the queue, too. This needs the right to read the queue.
    """
    check = QueueCheck(lambda start: log.read(names.queue, start)) if with_queue else None

    def replay(observe: Callable[[Record], None], verifiers: Verifiers) -> Iterator[ReplayedEpoch]:
        return Replay(log, names, ledger, observe, verifiers=verifiers).catch_up()

    nothing = f"the log has no stream {names.heads}, or the stream is empty"
    return audit_epochs(replay, ledger, check, nothing=nothing, now=now, progress=progress)


def audit_epochs(
    replay: Callable[[Callable[[Record], None], Verifiers], Iterator[ReplayedEpoch]],
    ledger: Ledger,
    check: QueueCheck | None,
    *,
    nothing: str,
    now: Callable[[], int],
    progress: Callable[[MapHead], None] | None = None,
) -> AuditReport:
    """Go through the epochs of a replay.

    Gaps, silence and heads from the future prove nothing. So they are in the report and raise no error.

    Args:
        replay: Replays into ``ledger``, calls back with each record, and yields each epoch once it is
            committed. An epoch that begins again calls back again.
        check: Compares the records with the queue.
        nothing: Why there may be no epoch.
        now: The wall clock, in ms.
        progress: Called with each verified head.

    Raises:
        DivergenceError: The first difference, or the ledger's pinned key is not one of the directory's.
        RollbackError, EquivocationError: The log does not hold the last head that was verified before.
        KtError: There are no heads at all.
    """
    before = ledger.committed
    report = AuditReport(anchor=before.epoch)
    verdicts: Counter[str] = Counter()  # of the epoch that is being replayed

    def observe(record: Record) -> None:
        if record.sequence == before.log.size:
            verdicts.clear()
        verdicts[record.verdict.label] += 1
        if check is not None:
            check.observe(record)

    with Verifiers(before.standing.origin) as verifiers:
        for epoch in replay(observe, verifiers):
            report.epochs += 1
            report.records += verdicts.total()
            report.verdicts += verdicts
            report.clock.verified(before, ledger.committed, now())
            before = ledger.committed
            if progress is not None:
                progress(epoch.head)
    if before.epoch == 0:
        raise KtError(f"nothing was audited: {nothing}; check the address and the name of the directory")
    check_pinned(ledger, in_force=True)
    report.epoch, report.timestamp = before.epoch, before.standing.timestamp
    report.clock.silence = silence(before, now())
    if check is not None:
        report.compared_with_queue = check.compared
    return report
