"""Examination of a whole data directory, offline: everything in it that can be held against its head.

A signer, a front end and a monitor keep the same things. Memory is bounded whatever the size: all is read
in the order in which it stands, and the two logs of nodes level by level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kt_es.crypto.hashes import HASH_SIZE, log_leaf_hash, log_node_hash
from kt_es.errors import DivergenceError, MalformedError, VerificationError
from kt_es.eventstore.streams import EventLog, StreamNames
from kt_es.formats.entries import INDEX_LENGTH, Mutation
from kt_es.formats.heads import MAP_HEAD, HeadEvent, MapHead, SignedMapHead
from kt_es.formats.keys import PublicKey
from kt_es.formats.profiles import Opening
from kt_es.formats.records import RECORDS, Record, Verdict, decode_records
from kt_es.merkle.log import LogState, NodeId, node_key, plan_state
from kt_es.merkle.map import LeafRef
from kt_es.merkle.walk import walk
from projections.chains import breach_of_chain
from projections.checks import check_commit
from projections.configs import config_chain
from projections.ledger import (
    COMMITTED,
    ENTRIES,
    HEADS,
    HEADS_LOG,
    META,
    MUTATIONS_LOG,
    NODES,
    OPENINGS,
    PAGES,
    SEQUENCE_SIZE,
    Ledger,
    entry_key,
)
from projections.origin import Beginning, beginning
from projections.storage import Family, Storage

MAX_DIFFERENCES = 20
BATCH = 256
EPOCH_SIZE = 8
PROGRESS_EVERY = 4096
LOGS = ((HEADS_LOG, "log of heads"), (MUTATIONS_LOG, "log of mutations"))


class _EnoughError(Exception):
    """So many differences were found that more say nothing new."""


@dataclass(slots=True)
class Report:
    """What was looked at, and the first differences; none means that all is as it must be."""

    epoch: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.differences


class Fsck:
    """One examination. ``progress`` is told now and then what is looked at and how many of it."""

    def __init__(
        self,
        store: Storage,
        origin: str,
        pinned: PublicKey,
        progress: Callable[[str, int], None] = lambda _w, _n: None,
    ) -> None:
        self._store = store
        self._origin = origin
        self._pinned = pinned
        self._progress = progress
        self.report = Report()

    def run(self, log: EventLog | None = None, names: StreamNames | None = None) -> Report:
        """Everything in the directory; with ``log``, also that both streams hold the same."""
        try:
            ledger = self._opened()
            if ledger is None:
                return self.report
            self.report.epoch = ledger.committed.epoch
            begun = beginning(self._store)
            steps: list[Callable[[], None]] = [
                lambda: check_commit(ledger),
                lambda: self._map(ledger),
                lambda: self._entries(ledger, begun),
                lambda: self._heads(ledger, begun),
                lambda: self._nodes(ledger, begun),
                self._openings,
            ]
            if log is not None and names is not None:
                steps.append(lambda: self._head_stream(log, names, ledger))
                steps.append(lambda: self._record_stream(log, names, ledger, begun))
            for step in steps:
                try:
                    step()
                except DivergenceError as error:
                    self._differs(str(error))
        except _EnoughError:
            pass
        return self.report

    def _opened(self) -> Ledger | None:
        try:
            if self._store.get(META, COMMITTED) is None:
                self._differs("the data directory has no committed epoch")
                return None
            return Ledger(self._store, self._origin, self._pinned)
        except DivergenceError as error:
            self._differs(str(error))
            return None

    def _differs(self, difference: str) -> None:
        if difference in self.report.differences:
            return
        self.report.differences.append(difference)
        if len(self.report.differences) >= MAX_DIFFERENCES:
            raise _EnoughError

    def _count(self, what: str) -> None:
        self.report.counts[what] += 1
        if self.report.counts[what] % PROGRESS_EVERY == 0:
            self._progress(what, self.report.counts[what])

    def _map(self, ledger: Ledger) -> None:
        """Every page hashes up to the root, and behind every leaf stands its entry."""
        root = ledger.committed.root
        batch: list[LeafRef] = []
        for leaf in walk(Family(self._store, PAGES), root, self._differs):
            self._count("leaves of the map")
            batch.append(leaf)
            if len(batch) == BATCH:
                self._behind(ledger, batch)
                batch = []
        self._behind(ledger, batch)
        found = self.report.counts["leaves of the map"]
        if found != root.size:
            self._differs(f"the map has {found} leaves, must have {root.size}")

    def _behind(self, ledger: Ledger, leaves: list[LeafRef]) -> None:
        try:
            ledger.mutations_at(leaves)
        except DivergenceError:
            for leaf in leaves:
                try:
                    ledger.mutations_at([leaf])
                except DivergenceError as error:
                    self._differs(str(error))

    def _entries(self, ledger: Ledger, begun: Beginning) -> None:
        """Every entry, the past ones too, is signed and follows the one before; of no epoch: counted."""
        committed = ledger.committed
        before: tuple[bytes, int, Mutation] | None = None
        for key, value in self._store.scan(ENTRIES):
            index, epoch = key[:INDEX_LENGTH], int.from_bytes(key[INDEX_LENGTH:])
            where = f"the entry at index {index.hex()} of epoch {epoch}"
            if len(key) != INDEX_LENGTH + EPOCH_SIZE:
                self._differs(f"an entry stands under a key of {len(key)} bytes")
                continue
            if epoch > committed.epoch:
                self._count("entries of an unfinished epoch")
                continue
            self._count("entries")
            sequence = int.from_bytes(value[:SEQUENCE_SIZE])
            try:
                mutation = Mutation.decode(value[SEQUENCE_SIZE:])
            except MalformedError as error:
                self._differs(f"{where} is damaged: {error}")
                continue
            if mutation.entry.index != index:
                self._differs(f"{where} is of another index")
            if sequence >= committed.log.size:
                self._differs(f"{where} names a record that is to come")
            of_index = before if before is not None and before[0] == index else None
            if of_index is not None and sequence <= of_index[1]:
                self._differs(f"{where} names a record before that of the version before")
            breach = breach_of_chain(
                mutation, None if of_index is None else of_index[2], self._origin, epoch <= begun.epoch
            )
            if breach:
                self._differs(f"{where} {breach}")
            before = (index, sequence, mutation)

    def _heads(self, ledger: Ledger, begun: Beginning) -> None:
        """Heads without a gap, signed by the config they name, growing, and leaves of the log of heads."""
        configs = {signed.config.hash: signed.config for signed in config_chain(ledger, ledger.committed)}
        expected = max(1, begun.epoch)
        before: MapHead | None = None
        for key, data in self._store.scan(HEADS):
            epoch = int.from_bytes(key)
            if epoch != expected:
                self._differs(f"the head of epoch {expected} is missing")
                before = None
            expected = epoch + 1
            self._count("heads")
            try:
                smh_bytes = HeadEvent.decode(data).smh_bytes
                smh = SignedMapHead.decode(smh_bytes)
                config = configs.get(smh.head.config_hash)
                if config is not None:
                    smh.verify(self._origin, config.signer_key)
            except (MalformedError, VerificationError) as error:
                self._differs(f"the head of epoch {epoch}: {error}")
                before = None
                continue
            if config is None:
                self._differs(f"the head of epoch {epoch} names a config that is not known here")
            if smh.head.epoch != epoch:
                self._differs(f"the head of epoch {epoch} says it is of epoch {smh.head.epoch}")
            if before is not None and not _grows(before, smh.head):
                self._differs(f"the head of epoch {epoch} goes back behind the one before it")
            before = smh.head
            (leaf,) = ledger.nodes(HEADS_LOG, [node_key(NodeId(0, epoch - 1))])
            # The head that a snapshot began with may be inside a larger node.
            if leaf != log_leaf_hash(smh_bytes) and not (leaf is None and epoch == begun.epoch):
                self._differs(f"the head of epoch {epoch} is another one than the log of heads has")
        if expected != ledger.committed.epoch + 1:
            self._differs(f"the last head is of epoch {expected - 1}, must be {ledger.committed.epoch}")

    def _nodes(self, ledger: Ledger, begun: Beginning) -> None:
        committed = ledger.committed
        for (log, name), state, first in zip(
            LOGS, (committed.heads, committed.log), (begun.epoch, begun.records), strict=True
        ):
            level = 0
            while state.size >> level:
                self._level(log, name, level, first, state)
                level += 1
            for node, here in zip(plan_state(state.size).nodes, state.hashes, strict=True):
                (stored,) = ledger.nodes(log, [node_key(node)])
                if stored != here:
                    self._differs(
                        f"{name}: node at level {node.level}, offset {node.offset} is not the edge's"
                    )

    def _level(self, log: bytes, name: str, level: int, first: int, state: LogState) -> None:
        """One level of nodes, without a gap, each the hash of its children; ``first`` leaves came before."""
        expected, end = _first_node(level, first), state.size >> level
        children = self._run(log, level - 1) if level else iter(())
        # The complete subtrees that a snapshot began with came without their children.
        childless = first >> level
        for offset, value in self._run(log, level):
            if offset >= end:
                self._count("nodes of an unfinished epoch")
                continue
            self._count("nodes of the logs")
            where = f"{name}: node at level {level}, offset {offset}"
            if offset != expected:
                self._differs(f"{name}: node at level {level}, offset {expected} is missing")
            expected = offset + 1
            if len(value) != HASH_SIZE:
                self._differs(f"{where} has {len(value)} bytes")
            elif level and offset >= childless:
                pair = list(_at(children, 2 * offset))
                if len(pair) == 2 and log_node_hash(*pair) != value:
                    self._differs(f"{where} is {value.hex()}, must be {log_node_hash(*pair).hex()}")
        if expected < end:
            self._differs(f"{name}: node at level {level}, offset {expected} is missing")

    def _run(self, log: bytes, level: int) -> Iterator[tuple[int, bytes]]:
        prefix = log + level.to_bytes(1)
        for key, value in self._store.scan(NODES, prefix):
            yield int.from_bytes(key[len(prefix) :]), value

    def _openings(self) -> None:
        """Openings decode. What is in them is private and is not told."""
        damaged = 0
        for _, data in self._store.scan(OPENINGS):
            self._count("openings")
            try:
                if data:
                    Opening.decode(data)
            except MalformedError:
                damaged += 1
        if damaged:
            self._differs(f"{damaged} openings are damaged")

    def _head_stream(self, log: EventLog, names: StreamNames, ledger: Ledger) -> None:
        expected = 0
        for event in log.read(names.heads, 0, ledger.committed.epoch):
            self._count("heads in the stream")
            if event.revision != expected or event.type != MAP_HEAD:
                self._differs(f"{names.heads} has {event.type!r} at revision {event.revision}, not a head")
            expected = event.revision + 1
            stored = self._store.get(HEADS, expected.to_bytes(EPOCH_SIZE))
            if stored is not None and stored != event.data:
                self._differs(
                    f"{names.heads}: the head of epoch {expected} is another one than is stored here"
                )
        if expected != ledger.committed.epoch:
            self._differs(
                f"{names.heads} ends with epoch {expected}, {ledger.committed.epoch} was committed here"
            )

    def _record_stream(self, log: EventLog, names: StreamNames, ledger: Ledger, begun: Beginning) -> None:
        committed, accepted, epoch = ledger.committed, 0, 1
        state, stream = LogState(), names.mutations
        revision = -1
        for event in log.read(stream, 0, committed.records_next):
            revision += 1
            where = f"{stream}, revision {revision}"
            try:
                first, records = decode_records(event.data)
            except MalformedError as error:
                raise DivergenceError(f"{where}: {error}") from None
            if event.revision != revision or event.type != RECORDS or first != state.size:
                raise DivergenceError(f"{where}: {event.type!r} begins at {first}, must be {state.size}")
            hashes = [log_leaf_hash(record) for record in records]
            stored = ledger.nodes(
                MUTATIONS_LOG, [node_key(NodeId(0, first + at)) for at in range(len(hashes))]
            )
            for at, (here, there) in enumerate(zip(stored, hashes, strict=True)):
                self._count("records in the stream")
                if here is not None and here != there:
                    self._differs(f"{where}: record {first + at} is another one than was hashed here")
            state, _ = state.append(hashes)
            for data in records:
                try:
                    record = Record.decode(data)
                except MalformedError as error:
                    raise DivergenceError(f"{where}: {error}") from None
                accepted += record.verdict is Verdict.ACCEPTED
                self._entry_of(record, epoch, begun)
                epoch += record.closes_epoch
        if revision + 1 != committed.records_next or state.size != committed.log.size:
            self._differs(
                f"{stream}: {state.size} records in {revision + 1} events, must be {committed.log.size} "
                f"in {committed.records_next}"
            )
        elif state != committed.log:
            self._differs(f"{stream}: root is {state.root().hex()}, must be {committed.log.root().hex()}")
        elif not begun.epoch and accepted != self.report.counts["entries"]:
            self._differs(f"{self.report.counts['entries']} entries stand here, {accepted} were accepted")

    def _entry_of(self, record: Record, epoch: int, begun: Beginning) -> None:
        """What a record accepted stands in the store as it was recorded, signatures and all."""
        content = record.item.content
        if record.verdict is not Verdict.ACCEPTED or not isinstance(content, bytes):
            return
        try:
            index = Mutation.decode(content).entry.index
        except MalformedError as error:
            self._differs(f"record {record.sequence} was accepted: {error}")
            return
        stored = self._store.get(ENTRIES, entry_key(index, epoch))
        if stored is None and record.sequence < begun.records:
            # A snapshot has current entries only.
            return
        if stored != record.sequence.to_bytes(SEQUENCE_SIZE) + content:
            how = "is missing" if stored is None else "is another one"
            self._differs(
                f"the entry at index {index.hex()} of epoch {epoch} {how}: see record {record.sequence}"
            )


def _grows(before: MapHead, head: MapHead) -> bool:
    return (
        head.timestamp > before.timestamp
        and head.log_size > before.log_size
        and head.queue_next > before.queue_next
        and head.map_size >= before.map_size
    )


def _first_node(level: int, leaves: int) -> int:
    """The first offset stored at ``level`` where ``leaves`` came before: the edge's, else the next."""
    return (leaves >> level) - (leaves >> level & 1)


def _at(run: Iterator[tuple[int, bytes]], offset: int) -> Iterator[bytes]:
    """The values at ``offset`` and the next one; those before are passed over, a gap ends it."""
    for found, value in run:
        if found >= offset:
            yield value
        if found > offset:
            return
