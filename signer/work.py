"""One epoch: queue events in, records appended, and at its marker the head and the commit (see loop.py).

The exact expected revision is the fence between signers. If the stream already holds what is about to
be written (a crash before the commit, a second signer, an append whose answer was lost), publishing
goes on; if it holds something else, it stops: two truths must never be published.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import (
    DivergenceError,
    EquivocationError,
    MalformedError,
    RollbackError,
    UnavailableError,
    WrongRevisionError,
)
from kt_es.eventstore.streams import MAX_APPEND, Event, EventLog, NewEvent, StreamNames, content_event
from kt_es.formats.configs import Config
from kt_es.formats.heads import (
    MAP_HEAD,
    Checkpoint,
    HeadEvent,
    MapHead,
    SignedMapHead,
    heads_origin,
    mutations_origin,
    sign_checkpoint,
)
from kt_es.formats.queue import RECORDS, RecordPacker, decode_records, items_of
from kt_es.ledger.anchor import Anchor, contradiction
from kt_es.ledger.fold import EpochFold
from kt_es.ledger.ledger import Ledger, config_chain
from kt_es.ledger.rows import Committed
from kt_es.ledger.tables import MUTATIONS_LOG
from signer.keys import KeyRing


def publish(
    log: EventLog,
    stream: str,
    revision: int,
    events: Sequence[NewEvent],
    convict: Callable[[bytes, bytes], EquivocationError | None] = lambda _ours, _theirs: None,
) -> None:
    """Make ``events`` stand in ``stream`` from ``revision`` on.

    Raises ``RollbackError`` if the stream lost events, ``DivergenceError`` if something else stands there,
    or in its place the error of ``convict``, which is asked about our bytes and those; and
    ``UnavailableError`` if the outcome is unknown: then the same call is repeated.
    """
    remaining = list(events)
    while remaining:
        try:
            log.append(stream, revision - 1, remaining)
            return
        except WrongRevisionError:
            standing = list(log.read(stream, revision, len(remaining)))
        if not standing:
            _explain(log, stream, revision)
        for there, ours in zip(standing, remaining, strict=False):
            if (there.type, there.data) != (ours.type, ours.data):
                raise convict(ours.data, there.data) or DivergenceError(
                    f"{stream}, revision {there.revision}: another {there.type} event stands where this "
                    f"signer would publish its own; it stops and publishes nothing"
                )
        revision += len(standing)
        remaining = remaining[len(standing) :]


def _explain(log: EventLog, stream: str, revision: int) -> NoReturn:
    """Raise the reason why an append at ``revision`` was refused although nothing stands there."""
    last = log.last_revision(stream)
    if last < revision - 1:
        raise RollbackError(
            f"the log was rolled back: {stream} has lost events, it ends before revision {revision}, which "
            f"follows what was committed here"
        )
    # The stream is not shorter: an earlier append that timed out is not readable yet, or was written between
    # the two reads. Nothing is lost, and the next attempt finds it.
    raise UnavailableError(
        f"{stream}: the append at revision {revision} was refused, but nothing stands there"
    )


def sign_head(head: MapHead, state: Committed, key: PrivateKey) -> HeadEvent:
    """The head event of an epoch: the SMH and checkpoints of both logs, all by ``key``.

    Deterministic, like everything signed here: the same queue and key give the same bytes.
    """
    smh = SignedMapHead.sign(head, key).encode()
    heads, _ = state.heads.append([log_leaf_hash(smh)])
    of_heads = Checkpoint(heads_origin(head.origin), heads.size, heads.root())
    of_mutations = Checkpoint(mutations_origin(head.origin), state.log.size, state.log.root())
    return HeadEvent(
        smh,
        sign_checkpoint(of_heads, of_heads.origin, key),
        sign_checkpoint(of_mutations, of_mutations.origin, key),
    )


def check_published(log: EventLog, names: StreamNames, ledger: Ledger) -> None:
    """Compare the end of what was committed with both streams, before anything is published.

    The last head has to stand there as it was signed, and the last records, which it seals, as they were
    hashed. Raises what ``Anchor`` raises, and ``DivergenceError`` naming the records that are missing or
    others: this data directory and this log do not belong together, or one of them was changed.
    """
    committed = ledger.committed
    if committed.epoch:
        Anchor(names, ledger).check(log)
        _check_last_records(log, names.mutations, ledger, committed)


def _check_last_records(log: EventLog, stream: str, ledger: Ledger, committed: Committed) -> None:
    """The records event before our position ends where the log does, with the records that were hashed."""
    revision = committed.records_next - 1
    event = next(iter(log.read(stream, revision, 1)), None)
    if event is None or event.revision != revision or event.type != RECORDS:
        raise DivergenceError(
            f"{stream} has no records event at revision {revision}, which was committed here"
        )
    try:
        first, records = decode_records(event.data)
    except MalformedError as error:
        raise DivergenceError(f"{stream}, revision {revision}: {error}") from None
    end = first + len(records)
    if end != committed.log.size:
        raise DivergenceError(
            f"{stream}, revision {revision}: ends with record {end - 1}, the last one committed here is "
            f"{committed.log.size - 1}: records_next was changed, or the stream was"
        )
    # A directory that began with a snapshot has no nodes of what was before it.
    for offset, node in enumerate(ledger.tables.nodes.leaves(MUTATIONS_LOG, first, len(records))):
        if node is not None and node != log_leaf_hash(records[offset]):
            raise DivergenceError(
                f"{stream}, revision {revision}: record {first + offset} is not the one committed here"
            )


def _untimed() -> float:
    return 0.0


class EpochWork:
    """The epoch after the ledger's committed one. After any trouble it is thrown away and begun anew.

    Records are appended once ``outbox`` bytes of them are packed, so memory is bounded however long the epoch
    is. Records that were appended before a crash are found in the stream and compared. All fields belong to
    the signer's thread.
    """

    def __init__(
        self,
        log: EventLog,
        names: StreamNames,
        ledger: Ledger,
        keys: KeyRing,
        outbox: int,
        *,
        monotonic: Callable[[], float] = _untimed,
    ) -> None:
        self._log = log
        self._names = names
        self._keys = keys
        self._outbox_limit = outbox
        self._monotonic = monotonic
        self._begun_at: float | None = None
        self._base = ledger.committed
        self._ledger = ledger
        self._fold = EpochFold(ledger)
        self._packer = RecordPacker(self._base.log.size)
        self._records_next = self._base.records_next
        self._outbox: list[NewEvent] = []
        self._outbox_size = 0
        self.queue_next = self._base.queue_next
        self.verdicts: Counter[str] = Counter()
        self.phases: dict[str, float] = {}  # seconds

    @property
    def size(self) -> int:
        """How many items the epoch has so far."""
        return self._fold.size

    @property
    def is_closed(self) -> bool:
        """Whether the marker was processed."""
        return self._fold.marker is not None

    @property
    def config(self) -> Config | None:
        """The config in force, None before the queue's first item."""
        signed = self._fold.epoch.config
        return None if signed is None else signed.config

    def process(self, event: Event) -> None:
        """Decide the next event of the queue."""
        if event.revision != self.queue_next:
            raise UnavailableError(f"{self._names.queue}: revision {self.queue_next} cannot be read")
        if self._begun_at is None:
            self._begun_at = self._monotonic()
        for record, data in self._fold.take(items_of(event.revision, event.type, event.data)):
            for packed in self._packer.add(data, closes_epoch=record.closes_epoch):
                self._outbox.append(content_event(self._names.mutations, RECORDS, packed))
                self._outbox_size += len(packed)
            self.verdicts[record.verdict.label] += 1
        self.queue_next = event.revision + 1
        if self._outbox_size >= self._outbox_limit:
            self._publish_records()

    def finish(self) -> MapHead:
        """Publish the records, then the head, then commit locally. The epoch must be closed."""
        config = self.config
        if config is None:
            raise DivergenceError("an epoch was closed without a config in force")
        began = self._monotonic() if self._begun_at is None else self._begun_at
        self.phases["collect"] = self._monotonic() - began - self.phases.get("records", 0.0)
        self._publish_records()
        began = self._monotonic()
        head, state = self._fold.close()
        event = sign_head(head, state, self._keys.key_for(config.signer_key))
        published = content_event(self._names.heads, MAP_HEAD, event.encode())
        # No head is published on a log that does not hold the last committed head.
        Anchor(self._names, self._ledger).check(self._log)
        publish(self._log, self._names.heads, self._base.epoch, [published], self._contradiction)
        self.phases["head"] = self._monotonic() - began
        began = self._monotonic()
        self._fold.commit(state, event, self._records_next)
        self.phases["commit"] = self._monotonic() - began
        return head

    def _contradiction(self, ours: bytes, theirs: bytes) -> EquivocationError | None:
        """The error for another head event where ours is to be published, if the directory signed it."""
        first = self._fold.epoch.config
        if self._base.epoch:
            configs = config_chain(self._ledger, self._base)
        else:
            configs = () if first is None else (first,)
        return contradiction(self._ledger, self._base.epoch + 1, ours, theirs, configs)

    def _publish_records(self) -> None:
        began = self._monotonic()
        for batch in _batches(self._outbox):
            publish(self._log, self._names.mutations, self._records_next, batch)
            self._records_next += len(batch)
        self._outbox = []
        self._outbox_size = 0
        self.phases["records"] = self.phases.get("records", 0.0) + self._monotonic() - began


def _batches(events: list[NewEvent]) -> Iterator[list[NewEvent]]:
    """``events`` in appends of at most 1 MiB, metadata and framing included by a margin."""
    batch: list[NewEvent] = []
    size = 0
    for event in events:
        if batch and size + len(event.data) > MAX_APPEND - 64 * 1024:
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += len(event.data)
    if batch:
        yield batch
