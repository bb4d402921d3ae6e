"""One epoch: queue events in, records appended, and at its marker the head and the commit (see loop.py).

The exact expected revision is the fence between signers. If the stream already has the bytes that are about
to be written (a crash before the commit, a second signer, an append whose answer was lost), publishing
continues. If the stream has other bytes, the signer stops: two histories must never be published.
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
from kt_es.formats.queue import RECORDS, RecordPacker, Verdict, items_of
from kt_es.ledger.anchor import Anchor, contradiction
from kt_es.ledger.fold import EpochFold
from kt_es.ledger.ledger import Ledger, config_chain
from kt_es.ledger.rows import Committed
from kt_es.ledger.verifiers import Verifiers
from signer.keys import KeyRing


def publish(
    log: EventLog,
    stream: str,
    revision: int,
    events: Sequence[NewEvent],
    convict: Callable[[bytes, bytes], EquivocationError | None] = lambda _ours, _theirs: None,
) -> None:
    """Append ``events`` to ``stream`` from ``revision`` on, except those that the stream already has there.

    Raises:
        RollbackError: The stream lost events.
        DivergenceError: The stream has another event there. If ``convict`` returns an error for our bytes and
            those, that error is raised instead.
        UnavailableError: The outcome is unknown; repeat the same call.
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
                    f"{stream}, revision {there.revision}: the log has another {there.type} event than this "
                    f"signer would publish; it stops and publishes nothing: find out who wrote that event"
                )
        revision += len(standing)
        remaining = remaining[len(standing) :]


def _explain(log: EventLog, stream: str, revision: int) -> NoReturn:
    """Raise the reason why an append at ``revision`` was refused although the stream has no event there."""
    last = log.last_revision(stream)
    if last < revision - 1:
        raise RollbackError(
            f"the log was rolled back: {stream} has lost events, it ends before revision {revision}, which "
            f"follows what was committed here: restore the complete log"
        )
    # The stream is not shorter: an earlier append that timed out is not readable yet, or was written between
    # the two reads. Nothing is lost, and the next attempt finds it.
    raise UnavailableError(
        f"{stream}: the append at revision {revision} was refused, but no event is there yet: trying again"
    )


def sign_head(head: MapHead, state: Committed, key: PrivateKey) -> HeadEvent:
    """Return the head event of an epoch: the SMH and the checkpoints of both logs, all signed by ``key``.

    The same queue and key give the same bytes, as for everything that is signed here.
    """
    smh = SignedMapHead.sign(head, key).encode()
    heads, _ = state.heads.append([log_leaf_hash(smh)])
    checkpoints = (
        Checkpoint(heads_origin(head.origin), heads.size, heads.root()),
        Checkpoint(mutations_origin(head.origin), state.log.size, state.log.root()),
    )
    return HeadEvent(smh, *(sign_checkpoint(one, one.origin, key) for one in checkpoints))


class EpochWork:
    """The epoch after the ledger's committed one. After any error of the log, a new object begins it again.

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
        verifiers: Verifiers | None = None,
        monotonic: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._log = log
        self._names = names
        self._keys = keys
        self._outbox_limit = outbox
        self._verifiers = verifiers or Verifiers.none()
        self._monotonic = monotonic
        self._begun_at: float | None = None
        self._base = ledger.committed
        self._ledger = ledger
        self._fold = EpochFold(ledger, self._verifiers.keep_busy)
        self._packer = RecordPacker(self._base.log.size)
        self._records_next = self._base.records_next
        self._outbox: list[NewEvent] = []
        self._outbox_size = 0
        self.queue_next = self._base.queue_next
        self._verdicts: Counter[Verdict] = Counter()
        self.phases: dict[str, float] = {}  # seconds

    @property
    def size(self) -> int:
        return self._fold.size

    @property
    def verdicts(self) -> dict[str, int]:
        """How often each verdict was given, by its label."""
        return {verdict.label: count for verdict, count in self._verdicts.items()}

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
        verified = self._verifiers.verified(event.revision)
        items = items_of(event.revision, event.type, event.data)
        for record, data in self._fold.take(items, verified=verified):
            for packed in self._packer.add(data, closes_epoch=record.closes_epoch):
                self._outbox.append(content_event(self._names.mutations, RECORDS, packed))
                self._outbox_size += len(packed)
            self._verdicts[record.verdict] += 1
        self.queue_next = event.revision + 1
        if self._outbox_size >= self._outbox_limit:
            self._publish_records()

    def finish(self) -> MapHead:
        """Publish the records, then the head, then commit. The epoch must be closed.

        Before the head is published, the rows that others read are written to a shared store.
        """
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
        self._fold.prepare(state, event, self._records_next)
        # No head is published on a log that does not hold the last committed head.
        Anchor(self._names, self._ledger).check(self._log)
        publish(self._log, self._names.heads, self._base.epoch, [published], self._contradiction)
        self.phases["head"] = self._monotonic() - began
        began = self._monotonic()
        self._fold.commit(state, event, self._records_next)
        self.phases["commit"] = self._monotonic() - began
        return head

    def _contradiction(self, ours: bytes, theirs: bytes) -> EquivocationError | None:
        """Return the error for another head event in the place of ours, None if it is not signed."""
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
        self._fold.appended(self._packer.first)
        self._outbox = []
        self._outbox_size = 0
        self.phases["records"] = self.phases.get("records", 0.0) + self._monotonic() - began


def _batches(events: list[NewEvent]) -> Iterator[list[NewEvent]]:
    """Yield ``events`` in appends of at most 1 MiB, with a margin for metadata and framing."""
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
