"""Replay of both logs: every verdict decided again, every root recomputed, every head compared.

Front ends, monitors and a signer that lost its disk all follow the directory in this one way. An epoch is
committed only if the replay gives the published bytes. The first difference raises ``DivergenceError``, which
names the record or head.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import partial

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, MalformedError, UnverifiedRowError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.formats.configs import Config, SignedConfig
from kt_es.formats.heads import MAP_HEAD, HeadEvent, MapHead, SignedMapHead
from kt_es.formats.queue import Item, ItemKind, Record, RecordPacker, decode_records
from kt_es.ledger.anchor import Anchor, check_commit, compare
from kt_es.ledger.fold import EpochFold
from kt_es.ledger.head_events import check_signatures, sealed
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.record_events import RecordReader, decoded_records
from kt_es.ledger.rows import Committed
from kt_es.ledger.verifiers import Verifiers


def _regrouped(revision: int) -> DivergenceError:
    return DivergenceError(f"records event {revision}: it has other records than it must have")


@dataclass(frozen=True, slots=True)
class ReplayedEpoch:
    """One epoch that was verified and committed."""

    head: MapHead
    event: HeadEvent


class EpochReplay:
    """The one judgement of epochs, wherever their heads and records are read: ``Replay``, and tiles."""

    def __init__(
        self,
        ledger: Ledger,
        read: Callable[[int], Iterator[Event]],
        observe: Callable[[Record], None] | None = None,
        *,
        verify_signatures: bool = True,
        verifiers: Verifiers | None = None,
    ) -> None:
        """Begin at the committed epoch of ``ledger``.

        Args:
            read: Yields the records events from a revision on, as they stand in the log of mutations.

        The other arguments and the errors are those of ``Replay``.
        """
        check_commit(ledger)
        self._verifiers = verifiers if verifiers is not None and verify_signatures else Verifiers.none()
        self._verifiers.begin()
        self._records = RecordReader(read, self._verifiers.ahead)
        self._observe = observe
        self._verify_signatures = verify_signatures
        self.ledger = ledger

    def advance(self, event: HeadEvent) -> ReplayedEpoch:
        """Verify and commit the epoch of ``event``, which must be the next one.

        A checkpoint that is empty is not compared. Raises ``DivergenceError``, and what ``read`` raises.
        """
        committed = self.ledger.committed
        if committed.epoch == 0:
            self._begin()
        try:
            published = SignedMapHead.decode(event.smh_bytes)
        except MalformedError as error:
            raise DivergenceError(f"head of epoch {committed.epoch + 1}: {error}") from None
        try:
            return self._replay(event, published, is_quick=True)
        except UnverifiedRowError:
            raise  # it says nothing about the log
        except DivergenceError:
            # The epoch differs from its head. Replay it again without shortcuts, to name the wrong record.
            self._verifiers.begin()
        return self._replay(event, published)

    def _begin(self) -> None:
        """Judge the first config by its own signer key, since the pinned key may be a later one.

        ``check_pinned`` checks at the end that the chain of configs leads to the pinned key. The fold refuses
        a first record that is no config.
        """
        event = self._records.peek(0)
        if event is None:
            return
        try:
            content = Record.decode(decode_records(event.data)[1][0]).item.content
            first = SignedConfig.decode(content if isinstance(content, bytes) else b"")
        except MalformedError:
            return
        self.ledger.begins_under(first.config.signer_key)

    def _replay(
        self, head_event: HeadEvent, published: SignedMapHead, *, is_quick: bool = False
    ) -> ReplayedEpoch:
        """Replay one epoch.

        Args:
            is_quick: Trust the recorded verdicts as far as a wrong one gives another head. So the head is
                right exactly if all of them are; but another record may be named.
        """
        fold = EpochFold(self.ledger, self._verifiers.keep_busy)
        records_next = self._replay_records(fold, published.head, is_quick=is_quick)
        head, state = fold.close()
        config = fold.epoch.config
        if config is None:
            raise DivergenceError(f"head of epoch {head.epoch}: no config is in force")
        check_head_event(head_event, published, head, state, config.config)
        fold.commit(state, head_event, records_next)
        return ReplayedEpoch(head, head_event)

    def _replay_records(self, fold: EpochFold, published: MapHead, *, is_quick: bool) -> int:
        committed = self.ledger.committed
        order = RecordOrder(committed)
        packer = RecordPacker(committed.log.size)
        revision = committed.records_next
        read: deque[tuple[int, bytes]] = deque()
        while fold.marker is None:
            event = self._records.of_epoch(revision, fold.epoch.number)
            records = decoded_records(event, fold.sequence)
            # The first record of the next event closes an event that is full.
            read.append((revision, event.data))
            verified = self._verifiers.verified(revision)
            replayed = replay_records(
                fold,
                records,
                order,
                packer,
                verify_signatures=self._verify_signatures or not is_quick,
                verified=verified,
                is_quick=is_quick,
            )
            for packed in replayed:
                number, data = read.popleft()
                if packed != data:
                    raise _regrouped(number)
            if self._observe is not None:
                for record, _ in records:
                    self._observe(record)
            revision += 1
        if read:
            raise _regrouped(read[0][0])
        if fold.sequence != published.log_size:
            raise DivergenceError(
                f"head of epoch {fold.epoch.number}: covers {published.log_size} records, must cover "
                f"{fold.sequence}: the record of its marker is number {fold.sequence - 1}"
            )
        return revision


class Replay:
    """Follows the logs of one directory in the event log into a ledger."""

    def __init__(
        self,
        log: EventLog,
        names: StreamNames,
        ledger: Ledger,
        observe: Callable[[Record], None] | None = None,
        *,
        verify_signatures: bool = True,
        verifiers: Verifiers | None = None,
    ) -> None:
        """Begin at the committed epoch of ``ledger``.

        Args:
            observe: Called with each record after it was verified, before its epoch is committed.
            verify_signatures: Verify the signatures of mutations. A signer that replays what it decided and
                signed itself trusts the verdicts instead, which its head seals.
            verifiers: Verify signatures ahead; None for one after the other.

        Raises:
            DivergenceError: The ledger is not one whole signed epoch (``check_commit``).
        """
        self._log = log
        self._names = names
        self._epochs = EpochReplay(
            ledger,
            partial(log.read, names.mutations),
            observe,
            verify_signatures=verify_signatures,
            verifiers=verifiers,
        )
        self.ledger = ledger

    def catch_up(self) -> Iterator[ReplayedEpoch]:
        """Commit every epoch that is published now and not committed here, and yield each.

        The last head that was committed here is compared first. Raises what ``Anchor`` and ``advance`` raise.
        """
        for event in Anchor(self._names, self.ledger).published(self._log):
            yield self.advance(event)

    def jump(self) -> Iterator[ReplayedEpoch]:
        """Skip no epoch: each is replayed."""
        return iter(())

    def advance(self, event: Event) -> ReplayedEpoch:
        """Verify and commit the epoch of a head event, which must be the next one."""
        epoch = self.ledger.committed.epoch
        where = f"head of epoch {epoch + 1}"
        if event.revision != epoch or event.type != MAP_HEAD:
            raise DivergenceError(
                f"{where}: the stream has {event.type!r} at revision {event.revision}, "
                f"not a map head at {epoch}"
            )
        try:
            head_event = HeadEvent.decode(event.data)
        except MalformedError as error:
            raise DivergenceError(f"{where}: {error}") from None
        return self._epochs.advance(head_event)


class RecordOrder:
    """Checks that records follow the order of the queue's items: no item was skipped or reordered."""

    def __init__(self, committed: Committed) -> None:
        self._revision = committed.queue_next - 1
        self._position = 0
        self._kind = ItemKind.UNKNOWN

    def check(self, sequence: int, item: Item) -> None:
        same_event = item.revision == self._revision and item.position == self._position + 1
        next_event = item.revision == self._revision + 1 and item.position == 0
        if not next_event and not (same_event and item.kind == self._kind == ItemKind.MUTATION):
            raise DivergenceError(
                f"record {sequence}: queue item ({item.revision}, {item.position}) does not follow "
                f"({self._revision}, {self._position})"
            )
        self._revision, self._position, self._kind = item.revision, item.position, item.kind


def replay_records(
    fold: EpochFold,
    records: list[tuple[Record, bytes]],
    order: RecordOrder,
    packer: RecordPacker,
    *,
    verify_signatures: bool = True,
    verified: Container[bytes] = (),
    is_quick: bool = False,
) -> list[bytes]:
    """Decide the items of ``records`` again, compare them, and return the record events that they close.

    Args:
        fold: The epoch that the records belong to.
        records: Consecutive records, with the bytes of each.
        order: Checks the order of the queue's items over the calls for one epoch.
        packer: Packs the records of the epoch into events, over the calls.
        verify_signatures: Verify the signatures of mutations; otherwise the recorded verdicts are trusted.
        verified: Facts about signatures of the records: see ``epochs.decide``.
        is_quick: Do not look up first versions that are accepted: see ``EpochFold.take``.
    """
    recorded = [record.verdict for record, _ in records]
    sealed = None if verify_signatures else recorded
    for record, _ in records:
        order.check(record.sequence, record.item)
    try:
        items = [record.item for record, _ in records]
        decided = fold.take(items, sealed, verified, records, recorded if is_quick else None)
    except MalformedError as error:
        raise DivergenceError(f"records from {records[0][0].sequence} on: {error}") from None
    packed: list[bytes] = []
    for (record, data), (replayed, replayed_data) in zip(records, decided, strict=True):
        if replayed_data != data:
            raise DivergenceError(
                f"record {record.sequence}: says {record.verdict.label}, must be {replayed.verdict.label}"
            )
        packed += packer.add(data, closes_epoch=record.closes_epoch)
    return packed


def check_head_event(
    event: HeadEvent, published: SignedMapHead, head: MapHead, state: Committed, config: Config
) -> None:
    """Compare a published head and its checkpoints with the result of the replay."""
    where = f"head of epoch {head.epoch}"
    compare(where, [(name, getattr(published.head, name), getattr(head, name)) for name in head.__slots__])
    heads, _ = state.heads.append([log_leaf_hash(event.smh_bytes)])
    check_signatures(event, published, sealed(state.log), sealed(heads), config, where=where)
