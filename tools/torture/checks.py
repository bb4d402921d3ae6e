"""The checks after every round, of everything that was acknowledged and published until then.

Three checks read the same logs and share as little code as possible: the audit, which decides every verdict
and computes every root again; a signer that makes both logs again from the queue; and plain books of items.
Each check continues where it stopped. The earlier part of both logs is read again and must have the same
bytes, so that together a round verifies the logs from the start. ``verify_from_start`` repeats all three
checks from the first record, and compares the first items of the queue with their records again.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from kt_es.config.settings import Settings
from kt_es.crypto.hashes import sha256
from kt_es.eventstore.streams import Event, EventLog, NewEvent
from kt_es.formats.entries import Mutation
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.queue import Item, Record, Verdict, decode_records, items_of
from kt_es.ledger.anchor import WRONG_LOG
from kt_es.ledger.ledger import Ledger, last_head
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES
from kt_es.process.clock import wall_clock
from projections.auditor import audit
from signer.keys import KeyRing
from signer.work import EpochWork
from tools.torture.directory import TortureError, eventually
from tools.torture.seen import Acknowledgement, Seen

OUTBOX = 100_000


@contextmanager
def ledger_in(settings: Settings, directory: Path) -> Iterator[Ledger]:
    store = RocksStore.open(directory, FAMILIES)
    try:
        yield Ledger(store, settings.origin, settings.pinned)
    finally:
        store.close()


class ReplayTarget:
    """A log for a signer that replays: an append must match the events that are already in the stream."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        standing = list(self._log.read(stream, expected + 1, len(events)))
        if [(event.type, event.data) for event in standing] != [(event.type, event.data) for event in events]:
            raise TortureError(f"{stream}, revision {expected + 1}: a fresh replay gives other bytes")

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        return self._log.read(stream, start, limit)


def replay_queue(log: EventLog, settings: Settings, ledger: Ledger, queue_next: int) -> None:
    """Make both logs again from the queue, up to the epoch that ends before ``queue_next``."""
    keys = KeyRing.load(settings.path(settings.signer.keys))
    published = cast("EventLog", ReplayTarget(log))

    def new_work() -> EpochWork:
        return EpochWork(published, settings.names, ledger, keys, OUTBOX)

    work = new_work()
    start = ledger.committed.queue_next
    for event in log.read(settings.names.queue, start, queue_next - start):
        work.process(event)
        if work.is_closed:
            work.finish()
            work = new_work()
    if ledger.committed.queue_next != queue_next:
        raise TortureError(
            f"a fresh replay ends an epoch at {ledger.committed.queue_next}, published is {queue_next}"
        )


class Books:
    """Plain books of the items in the queue and their records, kept without any code of the signer."""

    def __init__(self, settings: Settings) -> None:
        self._names = settings.names
        self.queue_next = 0
        self._records_next = 0
        self._heads_next = 0
        self._sequence = 0
        self._current: dict[bytes, tuple[int, bytes]] = {}
        self._events: dict[uuid.UUID, int] = {}
        self._verdicts: dict[bytes, set[str]] = defaultdict(set)

        self.counts: Counter[str] = Counter()

    def go_on(self, log: EventLog, head: MapHead, seen: Seen) -> None:
        """Read everything up to ``head``: one record for each item, in order, and one head for each epoch."""
        items = self._items(log, head.queue_next)
        for event in log.read(self._names.mutations, self._records_next):
            if self._sequence == head.log_size:
                break
            self._records_next = event.revision + 1
            for data in decode_records(event.data)[1]:
                self._take(Record.decode(data), next(items, None))
        if self._sequence != head.log_size or next(items, None) is not None:
            raise TortureError(f"epoch {head.epoch}: its records are not those of the queue's items")
        count = head.epoch - self._heads_next
        for event in log.read(self._names.heads, self._heads_next, count):
            self._take_head(event, seen)
        if self._heads_next != head.epoch:
            raise TortureError(f"epoch {head.epoch}: {self._heads_next} heads are published")

    def _items(self, log: EventLog, queue_next: int) -> Iterator[Item]:
        for event in log.read(self._names.queue, self.queue_next, queue_next - self.queue_next):
            if event.revision != self.queue_next:
                raise TortureError(f"the queue has no revision {self.queue_next}")
            self.queue_next += 1
            if event.id in self._events:
                self.counts["events that stand in the queue twice"] += 1
            self._events[event.id] = event.revision
            yield from items_of(event.revision, event.type, event.data)

    def _take(self, record: Record, item: Item | None) -> None:
        if record.item != item or record.sequence != self._sequence:
            raise TortureError(f"record {self._sequence}: {record.item} is not the queue's {item}")
        self._sequence += 1
        self.counts[f"verdict {record.verdict.label}"] += 1
        content = record.item.content
        if not isinstance(content, bytes):
            return
        self._verdicts[sha256(content)].add(record.verdict.label)
        if record.verdict is Verdict.ACCEPTED:
            self._take_effect(Mutation.decode(content), record.sequence)

    def _take_effect(self, mutation: Mutation, sequence: int) -> None:
        """Continue the chain of versions at an index. An entry that took effect twice would break it."""
        entry = mutation.entry
        version, previous = self._current.get(entry.index, (0, b""))
        if entry.version != version + 1 or (entry.previous or b"") != previous:
            raise TortureError(f"record {sequence}: accepted, but it does not follow version {version}")
        self._current[entry.index] = entry.version, mutation.entry_hash

    def _take_head(self, event: Event, seen: Seen) -> None:
        smh = HeadEvent.decode(event.data).smh_bytes
        epoch = SignedMapHead.decode(smh).head.epoch
        if event.revision != self._heads_next or epoch != self._heads_next + 1:
            raise TortureError(f"the heads are not contiguous: epoch {epoch} at revision {event.revision}")
        self._heads_next = epoch
        seen.head(epoch, smh, "the log")

    def check_acknowledged(self, receipts: Sequence[Acknowledgement], events: Sequence[uuid.UUID]) -> None:
        """Check that each acknowledged item is decided. ``go_on`` has checked that none is decided twice."""
        for receipt in receipts:
            verdicts = self._verdicts.get(receipt.item)
            if not verdicts:
                raise TortureError(f"an acknowledged submission was never decided: {receipt.item.hex()}")
            if receipt.verdict is not None and receipt.verdict not in verdicts:
                raise TortureError(f"told {receipt.verdict}, decided {verdicts}: {receipt.item.hex()}")
        for event in events:
            if event not in self._events:
                raise TortureError(f"an acknowledged append is not in the queue: {event}")


class Unchanged:
    """Keeps the digest of the verified part of each stream, to find any later change there."""

    def __init__(self, streams: Sequence[str]) -> None:
        self._known = {stream: (0, sha256(b"")) for stream in streams}

    def check(self, log: EventLog) -> None:
        """Read every stream from its first event, compare the known part, and add the new events."""
        for stream, (count, known) in self._known.items():
            digest, number = hashlib.sha256(), 0
            for event in log.read(stream):
                if number == count and digest.digest() != known:
                    break
                if event.revision != number:
                    raise TortureError(f"{stream} has revision {event.revision} in the place of {number}")
                digest.update(event.type.encode() + b"\n" + sha256(event.data))
                number += 1
            if number < count or (number == count and digest.digest() != known):
                raise TortureError(f"{stream}: its first {count} events are not what they were")
            self._known[stream] = (number, digest.digest())


class Checks:
    """The three checks. They continue from round to round, on separate ledgers."""

    def __init__(self, settings: Settings, base: Path, seen: Seen) -> None:
        self._settings = settings
        self._base = base
        self._seen = seen
        self.books = Books(settings)
        names = settings.names
        self._unchanged = Unchanged((names.mutations, names.heads))
        self.epochs = 0
        self.records = 0

    def verify(self, log: EventLog) -> MapHead:
        """Verify everything published until now. Everything acknowledged before must be decided by a head."""
        receipts, events = self._seen.take_acknowledged()
        self._wait_decided(log)
        self._unchanged.check(log)
        head = self._verify(log, self._base / "audit", self._base / "replay")
        self.books.go_on(log, head, self._seen)
        self.books.check_acknowledged(receipts, events)
        for epoch in self._seen.heads():
            if epoch > head.epoch and log.last_revision(self._settings.names.heads) + 1 < epoch:
                raise TortureError(f"a head of epoch {epoch} was shown that is not in the log")
        self._seen.check()
        self.epochs, self.records = head.epoch, head.log_size
        return head

    def verify_from_start(self, log: EventLog) -> MapHead:
        """Repeat the audit, the replay and the books from the first record."""
        base = self._base / "from-start"
        head = self._verify(log, base / "audit", base / "replay")
        shutil.rmtree(base)
        books = Books(self._settings)
        books.go_on(log, head, self._seen)
        self._seen.check()
        return head

    def _verify(self, log: EventLog, audited: Path, replayed: Path) -> MapHead:
        settings = self._settings
        try:
            with ledger_in(settings, audited) as ledger:
                audit(log, settings.names, ledger, with_queue=True, now=wall_clock)
                _, head = last_head(ledger)
            with ledger_in(settings, replayed) as ledger:
                replay_queue(log, settings, ledger, head.queue_next)
                if ledger.committed.root.hash != head.map_root:
                    raise TortureError(f"epoch {head.epoch}: the replay has another map root")
        except WRONG_LOG as error:
            raise TortureError(f"the logs do not verify: {error}") from error
        return head

    def _wait_decided(self, log: EventLog) -> None:
        cut = log.last_revision(self._settings.names.queue)

        def decided() -> bool:
            self._seen.check()
            event = log.last_event(self._settings.names.heads)
            if event is None:
                return False
            return SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head.queue_next > cut

        eventually(decided, f"a head has what was acknowledged, up to queue revision {cut}", 60)

    def check_disks(self, directories: Sequence[Path]) -> None:
        """Check that no data directory has a head that differs from the published one.

        The processes must have ended.
        """
        published = self._seen.heads()
        for directory in directories:
            with ledger_in(self._settings, directory) as ledger:
                for epoch in range(1, ledger.committed.epoch + 1):
                    event = ledger.tables.heads.event(epoch)
                    if published.get(epoch) not in (None, event.smh_bytes):
                        raise TortureError(f"{directory} has another head of epoch {epoch}")
