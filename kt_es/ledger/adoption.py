"""Following the heads of a directory by the states in a shared store, without a replay.

The signer writes the state after an epoch before it publishes the head of the epoch (``EpochFold.prepare``).
To adopt an epoch is to compare this state with the signed head and to read the root page. Answers are then
about this epoch. Verdicts are not decided again: monitors do that. A state that is missing or wrong is read
once more and then refused: the caller continues with the previous epoch, and tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, MalformedError, UnverifiedRowError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.formats.configs import SignedConfig
from kt_es.formats.heads import MAP_HEAD, HeadEvent, MapHead, SignedMapHead
from kt_es.formats.queue import Record, Verdict, decode_records
from kt_es.ledger.anchor import Anchor, check_state
from kt_es.ledger.fold import with_head
from kt_es.ledger.ledger import Ledger, config_chain
from kt_es.ledger.record_events import RecordReader, decoded_records
from kt_es.ledger.replay import Replay, ReplayedEpoch
from kt_es.ledger.rows import Committed
from kt_es.ledger.shared_store import LOCAL, SharedStore
from kt_es.ledger.shared_tables import SharedStateTable
from kt_es.ledger.store import Change
from kt_es.ledger.verifiers import Verifiers
from kt_es.merkle.log import LogState

LEVELS = 3
"""Levels of pages that are read ahead: up to 273 pages."""
JUMP = 64
"""Up to this many new epochs are adopted one by one. If there are more, only the newest is adopted."""


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
        self._records = RecordReader(partial(log.read, names.mutations))
        self._observe = observe
        self._completes = completes
        self.ledger = ledger

    def jump(self) -> Iterator[ReplayedEpoch]:
        """Adopt the newest published epoch if the next ones cannot all be adopted.

        The next epochs cannot be adopted in three cases: no epoch is committed here yet, more than ``JUMP``
        epochs lead to the newest, or the next epoch was pruned. Raises what ``Anchor`` and ``advance`` raise.
        """
        committed = self.ledger.committed
        if committed.epoch == 0:
            newest = self._log.last_revision(self._names.heads)
            for event in self._log.read(self._names.heads, newest, 1) if newest >= 0 else ():
                yield self._adopt(event, None)
        elif (
            self._log.last_revision(self._names.heads) + 1 - committed.epoch > JUMP
            or self._states.oldest() > committed.epoch + 1
        ):
            yield from self.catch_up()

    def catch_up(self) -> Iterator[ReplayedEpoch]:
        """Compare the head that was committed here with the log, and adopt the newest published epoch."""
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
            DivergenceError: The log contradicts itself or what was verified here.
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
        """Adopt the epoch of ``event``. ``heads`` is the log of heads if it was read, otherwise None."""
        head_event, published = _decoded(event)
        head = published.head
        if event.revision != head.epoch - 1:
            raise DivergenceError(f"head of epoch {head.epoch}: it is at revision {event.revision}")
        before = self.ledger.committed
        end = self._read_records(before, head) if 0 < before.epoch == head.epoch - 1 else None
        committed, rows = self._verified(head, head_event, end)
        if heads is not None and committed.heads != heads:
            raise DivergenceError(
                f"head of epoch {head.epoch}: its log of heads does not continue the one verified here"
            )
        if end is None:
            self._find_erasures(head.epoch)
        if self.ledger.last_erasure == head.epoch:
            self._store.forget_erasures()
        self.ledger.oldest = self._states.oldest()
        self._store.pin(rows)
        self._store.write(rows if self._completes else [row for row in rows if row[0] in LOCAL])
        self.ledger.committed = committed
        return ReplayedEpoch(head, head_event)

    def _read_records(self, before: Committed, head: MapHead) -> _End:
        """Read the records of the epoch after ``before``, and compare them with its signed head."""
        log, revision, config = before.log, before.records_next, head.config_hash
        while log.size < head.log_size:
            event = self._records.of_epoch(revision, head.epoch)
            records = decoded_records(event, log.size)
            log, _ = log.append([log_leaf_hash(data) for _, data in records])
            for record, _ in records:
                if record.verdict is Verdict.ERASED:
                    self.ledger.has_erasures, self.ledger.last_erasure = True, head.epoch
                config = _accepted(record) or config
                if self._observe is not None:
                    self._observe(record)
            revision += 1
        if (log.size, log.root()) != (head.log_size, head.log_root):
            raise DivergenceError(
                f"head of epoch {head.epoch}: the records in {self._names.mutations} are not those of it"
            )
        return _End(revision, config)

    def _read_back(self, head: MapHead, records_next: int) -> _End:
        """Read the records of an epoch backwards. By its state, the epoch ends before ``records_next``.

        Only a signer reads all records of the epoch, to find the config of the next epoch. Other processes do
        not need that config yet.
        """
        number, revision, config = head.log_size, records_next, None
        first = self._log_size_before(head.epoch) if self._completes else number - 1
        while number > first:
            revision -= 1
            event = next(iter(self._log.read(self._names.mutations, revision, 1)), None)
            start, encoded = (0, []) if event is None else decode_records(event.data)
            if start + len(encoded) != number:
                raise DivergenceError(
                    f"revision {revision} of {self._names.mutations} does not end with record {number - 1}, "
                    "the last one under the head"
                )
            number = start
            if self._completes:
                records = [record for record in map(Record.decode, encoded) if record.sequence >= first]
                config = config or next(filter(None, map(_accepted, reversed(records))), None)
        return _End(records_next, (config or head.config_hash) if self._completes else None)

    def _log_size_before(self, epoch: int) -> int:
        """Return the number of records in all epochs before ``epoch``."""
        for event in self._log.read(self._names.heads, epoch - 2, 1) if epoch > 1 else ():
            return _decoded(event)[1].head.log_size
        return 0

    def _verified(self, head: MapHead, event: HeadEvent, end: _End | None) -> tuple[Committed, list[Change]]:
        """Return the state after an epoch, compared with its head, and the rows that follow from the head."""
        for again in (False, True):
            try:
                return self._state(head, event, end, again=again)
            except (DivergenceError, MalformedError) as error:
                problem = error
        raise UnverifiedRowError(f"the shared store has no good state of epoch {head.epoch}: {problem}")

    def _state(
        self, head: MapHead, event: HeadEvent, end: _End | None, *, again: bool
    ) -> tuple[Committed, list[Change]]:
        data = self._states.published(head.epoch, event, again=again)
        if data is None:
            raise DivergenceError("it is missing; `kt store rebuild` makes it from the log")
        origin = self.ledger.committed.standing.origin
        state = Committed.decode(data, origin, self.ledger.pinned)
        committed, rows = with_head(self.ledger.tables, state, event, state.records_next)
        check_state(committed, event, config_chain(self.ledger, committed))
        found = end or self._read_back(head, committed.records_next)
        config = committed.standing.config
        if found.records_next != committed.records_next:
            raise DivergenceError(
                f"its records_next is {committed.records_next}, must be {found.records_next}: there the "
                f"records of the epoch end in {self._names.mutations}"
            )
        if found.config is not None and (config is None or config.config.hash != found.config):
            raise DivergenceError("its config is not the one in force after that epoch")
        self.ledger.map.warm(committed.root, 1)
        # A wrong page below the root fails only the lookups that need this page.
        with suppress(UnverifiedRowError):
            self.ledger.map.warm(committed.root, LEVELS)
        return committed, rows

    def _find_erasures(self, epoch: int) -> None:
        if self.ledger.has_erasures or not self.ledger.tables.erasures.is_empty():
            self.ledger.has_erasures, self.ledger.last_erasure = True, epoch


@dataclass(frozen=True, slots=True)
class _End:
    """The parts of the state after an epoch that its head does not seal. The log of mutations has them.

    ``records_next`` is as in ``Committed``. ``config`` is the hash of the config in force for the next epoch,
    None if it was not read.
    """

    records_next: int
    config: bytes | None


def _accepted(record: Record) -> bytes | None:
    """Return the hash of the config that ``record`` accepted, None if the record accepted no config."""
    content = record.item.content
    if record.verdict is not Verdict.CONFIG or not isinstance(content, bytes):
        return None
    return SignedConfig.decode(content).config.hash


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
    log: EventLog,
    names: StreamNames,
    ledger: Ledger,
    observe: Callable[[Record], None] | None = None,
    verifiers: Verifiers | None = None,
) -> Replay | Adoption:
    """Return the follower of the logs into ``ledger``: a replay, or an adoption if the store is shared."""
    if ledger.store.is_shared:
        return Adoption(log, names, ledger, observe)
    return Replay(log, names, ledger, observe, verifiers=verifiers)
