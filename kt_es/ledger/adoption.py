"""Following the heads of a directory by the states in a shared store, without a replay.

The signer writes the state after an epoch before it publishes the head of the epoch (``EpochFold.prepare``).
Who adopts the epoch compares the state with the signed head, reads the root page, and then answers from it.
Verdicts are not decided again: monitors do that. A state that is missing or wrong is asked for once more and
then refused: the caller goes on with the epoch before, and tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, MalformedError, UnverifiedRowError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.formats.heads import MAP_HEAD, HeadEvent, SignedMapHead
from kt_es.formats.queue import Record, Verdict
from kt_es.ledger.anchor import Anchor, check_state
from kt_es.ledger.fold import with_head
from kt_es.ledger.ledger import Ledger, config_chain
from kt_es.ledger.replay import RecordReader, Replay, ReplayedEpoch, decoded_records
from kt_es.ledger.rows import Committed
from kt_es.ledger.shared_store import LOCAL, SharedStore
from kt_es.ledger.shared_tables import SharedStateTable
from kt_es.ledger.store import Change
from kt_es.merkle.log import LogState

LEVELS = 3
"""Levels of pages that are read ahead: up to 273 pages."""
JUMP = 64
"""Epochs that are adopted one by one. Of more, the newest alone is adopted."""


class Adoption:
    """Adopts the epochs of one directory over a shared store into ``ledger``."""

    def __init__(
        self,
        log: EventLog,
        names: StreamNames,
        ledger: Ledger,
        observe: Callable[[Record], None] | None = None,
        *,
        completes: bool = False,
    ) -> None:
        """Begin at the committed epoch of ``ledger``, whose store is shared.

        Args:
            observe: Called with each record of an epoch that follows the committed one, before the epoch
                is adopted. Records of epochs that are skipped are not read.
            completes: Write the rows that follow from an adopted head, which its signer may have left out.
        """
        store, states = ledger.store, ledger.tables.states
        if not isinstance(store, SharedStore) or not isinstance(states, SharedStateTable):
            raise TypeError("epochs are adopted from a shared store alone")
        self._store = store
        self._states = states
        self._log = log
        self._names = names
        self._records = RecordReader(log, names.mutations)
        self._observe = observe
        self._completes = completes
        self.ledger = ledger

    def jump(self) -> Iterator[ReplayedEpoch]:
        """Adopt the newest published epoch if more than ``JUMP`` epochs lead to it, or if none is known yet.

        Raises what ``Anchor`` and ``advance`` raise.
        """
        committed = self.ledger.committed
        if committed.epoch == 0:
            newest = self._log.last_revision(self._names.heads)
            for event in self._log.read(self._names.heads, newest, 1) if newest >= 0 else ():
                yield self._adopt(event, None)
        elif self._log.last_revision(self._names.heads) + 1 - committed.epoch > JUMP:
            yield from self.catch_up()

    def catch_up(self) -> Iterator[ReplayedEpoch]:
        """Adopt the newest published epoch, after the head that was committed here was compared."""
        if self.ledger.committed.epoch == 0:
            yield from self.jump()
            return
        heads, newest = self.ledger.committed.heads, None
        for newest in Anchor(self._names, self.ledger).published(self._log):
            heads, _ = heads.append([log_leaf_hash(_decoded(newest)[0].smh_bytes)])
        if newest is not None:
            yield self._adopt(newest, heads)

    def advance(self, event: Event) -> ReplayedEpoch:
        """Adopt the epoch of a head event, which must be the next one.

        Raises:
            UnverifiedRowError: The shared store does not have what the signed head needs.
            DivergenceError: The log holds something that cannot be.
        """
        committed = self.ledger.committed
        if event.revision != committed.epoch:
            raise DivergenceError(
                f"head of epoch {committed.epoch + 1}: the stream has revision {event.revision}, "
                f"not {committed.epoch}"
            )
        heads, _ = committed.heads.append([log_leaf_hash(_decoded(event)[0].smh_bytes)])
        return self._adopt(event, heads)

    def _adopt(self, event: Event, heads: LogState | None) -> ReplayedEpoch:
        """Adopt the epoch of ``event``. ``heads`` is the log of heads that was seen, None if it was not."""
        head_event, published = _decoded(event)
        head = published.head
        if event.revision != head.epoch - 1:
            raise DivergenceError(f"head of epoch {head.epoch}: it is at revision {event.revision}")
        committed, rows = self._verified(head.epoch, head_event)
        if heads is not None and committed.heads != heads:
            raise DivergenceError(
                f"head of epoch {head.epoch}: its log of heads does not continue the one verified here"
            )
        before = self.ledger.committed
        if 0 < before.epoch == head.epoch - 1:
            self._read_records(before, committed)
        else:
            self._find_erasures(head.epoch)
        if self.ledger.last_erasure == head.epoch:
            self._store.forget_erasures()
        self.ledger.oldest = self._states.oldest()
        self._store.pin(rows)
        self._store.write(rows if self._completes else [row for row in rows if row[0] in LOCAL])
        self.ledger.committed = committed
        return ReplayedEpoch(head, head_event)

    def _verified(self, epoch: int, event: HeadEvent) -> tuple[Committed, list[Change]]:
        """Return the state after ``epoch``, compared with its head, and the rows that the head brings."""
        for again in (False, True):
            try:
                return self._state(epoch, event, again=again)
            except (DivergenceError, MalformedError) as error:
                problem = error
        raise UnverifiedRowError(f"the shared store has no good state of epoch {epoch}: {problem}")

    def _state(self, epoch: int, event: HeadEvent, *, again: bool) -> tuple[Committed, list[Change]]:
        data = self._states.published(epoch, event, again=again)
        if data is None:
            raise DivergenceError("it is missing; `kt store rebuild` makes it from the log")
        origin = self.ledger.committed.standing.origin
        state = Committed.decode(data, origin, self.ledger.pinned)
        committed, rows = with_head(self.ledger.tables, state, event, state.records_next)
        check_state(committed, event, config_chain(self.ledger, committed))
        self.ledger.map.warm(committed.root, LEVELS)
        return committed, rows

    def _read_records(self, before: Committed, committed: Committed) -> None:
        """Read the records of one epoch and compare them with its signed head."""
        log, revision = before.log, before.records_next
        while log.size < committed.log.size:
            event = self._records.of_epoch(revision, committed.epoch)
            records = decoded_records(event, log.size)
            log, _ = log.append([log_leaf_hash(data) for _, data in records])
            for record, _ in records:
                if record.verdict is Verdict.ERASED:
                    self.ledger.has_erasures, self.ledger.last_erasure = True, committed.epoch
                if self._observe is not None:
                    self._observe(record)
            revision += 1
        if log != committed.log or revision != committed.records_next:
            raise DivergenceError(
                f"head of epoch {committed.epoch}: the records in {self._names.mutations} are not those of it"
            )

    def _find_erasures(self, epoch: int) -> None:
        if self.ledger.has_erasures or not self.ledger.tables.erasures.is_empty():
            self.ledger.has_erasures, self.ledger.last_erasure = True, epoch


def _decoded(event: Event) -> tuple[HeadEvent, SignedMapHead]:
    where = f"head of epoch {event.revision + 1}"
    if event.type != MAP_HEAD:
        raise DivergenceError(f"{where}: the stream has {event.type!r}, not a map head")
    try:
        head_event = HeadEvent.decode(event.data)
        return head_event, SignedMapHead.decode(head_event.smh_bytes)
    except MalformedError as error:
        raise DivergenceError(f"{where}: {error}") from None


def following(
    log: EventLog, names: StreamNames, ledger: Ledger, observe: Callable[[Record], None] | None = None
) -> Replay | Adoption:
    """Return what follows the logs into ``ledger``: a replay, or over a shared store an adoption."""
    return (Adoption if ledger.store.is_shared else Replay)(log, names, ledger, observe)
