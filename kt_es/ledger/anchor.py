"""Checks before a process follows a log or signs: of the data directory, and of the anchor in the log.

``check_commit`` compares the committed state with the head event that was stored with it. It reads a few
rows however large the map is; ``fsck`` reads everything.

The anchor is the last committed head (docs/DESIGN.md, section 9). Every follower compares the anchor at its
start, after each connection, and at each head: the stream of heads must have the same bytes at the anchor's
revision. A stream that ends before the anchor was rolled back. Another head of this directory at that
revision is a contradiction, and both heads are its evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kt_es.errors import (
    DivergenceError,
    EquivocationError,
    MalformedError,
    RollbackError,
    UnavailableError,
    VerificationError,
)
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.evidence import contradicting_checkpoints, contradicting_heads
from kt_es.formats.configs import SignedConfig
from kt_es.formats.heads import (
    MAP_HEAD,
    HeadEvent,
    MapHead,
    SignedMapHead,
)
from kt_es.ledger.head_events import check_signatures, config_of, sealed
from kt_es.ledger.ledger import Ledger, check_chain, config_chain
from kt_es.ledger.rows import EMPTY_LOG, Committed
from kt_es.merkle.map import EMPTY_ROOT

# The errors after which a follower must stop. The log is wrong, so trying again cannot help.
WRONG_LOG = (DivergenceError, VerificationError)

_HERE = "the data directory"
_STEP = "log of heads"

Fields = Iterable[tuple[str, object, object]]
"""Names of fields, each with its value and the value that it must have."""


def check_commit(ledger: Ledger) -> None:
    """Compare the committed state with its head, its signatures and, if it is kept, the root page of its map.

    ``check_pinned`` checks that the directory is the one of the pinned key. Raises ``DivergenceError`` for
    the first field that differs.
    """
    committed = ledger.committed
    if committed.epoch == 0:
        _check_nothing(committed)
        return
    check_state(committed, ledger.tables.heads.event(committed.epoch), config_chain(ledger, committed))
    if committed.epoch < ledger.oldest:
        # The shared store was pruned while this process did not run: a later epoch is going to be adopted.
        return
    # Every path begins at the root page, so a proof for any index compares the hash of this page with the
    # root.
    ledger.map.prove(committed.root, bytes(32))


def check_state(committed: Committed, event: HeadEvent, chain: Sequence[SignedConfig]) -> None:
    """Compare a state of epoch 1 or later with the head event that sealed it, without a store.

    ``chain`` has the directory's configs up to the one in force for the coming epoch. ``records_next`` is the
    one field that no head has. Raises ``DivergenceError`` like ``check_commit``.
    """
    where = f"{_HERE}, epoch {committed.epoch}"
    check_chain(chain, committed.standing.origin)
    try:
        smh = SignedMapHead.decode(event.smh_bytes)
    except MalformedError as error:
        raise DivergenceError(f"{where}: the stored head is damaged: {error}") from None
    check_sealed(committed, smh.head, where)
    config = config_of(chain, smh.head.config_hash, where)
    where = f"{where}: the stored head"
    check_signatures(event, smh, sealed(committed.log), sealed(committed.heads), config, where=where)


def check_sealed(committed: Committed, head: MapHead, where: str) -> None:
    """Compare the fields of a state with the head that sealed them.

    Raises ``DivergenceError`` for the first field that differs; ``where`` begins its message.
    """
    standing = committed.standing
    fields: Fields = (
        ("origin", standing.origin, head.origin),
        ("epoch", standing.epoch, head.epoch),
        ("map_root", committed.root.hash, head.map_root),
        ("map_size", committed.root.size, head.map_size),
        ("log_size", committed.log.size, head.log_size),
        ("log_root", committed.log.root(), head.log_root),
        ("queue_next", committed.queue_next, head.queue_next),
        ("timestamp", standing.timestamp, head.timestamp),
        ("size of the log of heads", committed.heads.size, head.epoch),
    )
    compare(where, fields, " by its head")
    if committed.root.version > committed.epoch:
        raise DivergenceError(
            f"{where}: map_root is of epoch {committed.root.version}, expected {committed.epoch} or earlier"
        )
    if not 0 < committed.records_next <= committed.log.size:
        raise DivergenceError(
            f"{where}: records_next is {committed.records_next}, must be 1 to {committed.log.size}: "
            f"one event for each record at most"
        )


def _check_nothing(committed: Committed) -> None:
    fields: Fields = (
        ("map_root", committed.root, EMPTY_ROOT),
        ("log_size", committed.log, EMPTY_LOG),
        ("size of the log of heads", committed.heads, EMPTY_LOG),
        ("queue_next", committed.queue_next, 0),
        ("records_next", committed.records_next, 0),
        ("timestamp", committed.standing.timestamp, 0),
        ("config", committed.standing.config, None),
    )
    compare(f"{_HERE}, epoch 0", fields, " before the first epoch")


def compare(where: str, fields: Fields, why: str = "") -> None:
    """Raise ``DivergenceError`` for the first field that differs. ``why`` ends its message."""
    for name, here, must in fields:
        if here != must:
            raise DivergenceError(f"{where}: {name} is {_shown(here)}, must be {_shown(must)}{why}")


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


class Anchor:
    """Compares the last committed head of ``ledger`` with the stream of heads.

    An empty ledger has no anchor: then nothing is compared. Every method may raise:
        RollbackError: The stream ends before the anchor.
        EquivocationError: The stream has another head of the anchor's epoch, which the directory signed.
        DivergenceError: The stream has anything else at the anchor's revision.
    """

    def __init__(self, names: StreamNames, ledger: Ledger) -> None:
        self._stream = names.heads
        self._ledger = ledger

    def check(self, log: EventLog) -> None:
        """Compare the anchor: one read of one event."""
        if self._ledger.committed.epoch:
            self._compare(log, self._read(log, 1)[:1])

    def published(self, log: EventLog) -> Iterator[Event]:
        """Yield the heads after the anchor, to the end of the stream as it is now.

        The same read begins with the anchor, so the comparison costs no read of its own.
        """
        epoch = self._ledger.committed.epoch
        events = iter(log.read(self._stream, max(0, epoch - 1)))
        if epoch:
            first = next(events, None)
            self._compare(log, [] if first is None else [first])
        yield from events

    def check_delivered(self, log: EventLog, event: Event) -> None:
        """Compare the anchor, and the next head with ``event`` of a subscription. One read of two events."""
        epoch = self._ledger.committed.epoch
        found = self._read(log, 2 if epoch else 1)
        if epoch:
            self._compare(log, found[:1])
            found = found[1:]
        if event.revision != epoch or (found and _same(found[0], event)):
            # An event that is not the next one is refused by the replay.
            return
        if not found:
            raise RollbackError(
                f"the log was rolled back: a subscription delivered the head of epoch {epoch + 1}, but "
                f"{self._stream} ends before it"
            )
        raise another_head(
            self._ledger,
            epoch + 1,
            event.data,
            found[0].data,
            f"{self._stream} has another head of epoch {epoch + 1} than a subscription to it delivered",
        )

    def _read(self, log: EventLog, count: int) -> list[Event]:
        return list(log.read(self._stream, max(0, self._ledger.committed.epoch - 1), count))

    def _compare(self, log: EventLog, found: Sequence[Event]) -> None:
        epoch = self._ledger.committed.epoch
        if not found:
            raise self._missing(log, epoch)
        event, there = self._ledger.tables.heads.event(epoch), found[0]
        ours = event.encode()
        if (there.revision, there.type, there.data) == (epoch - 1, MAP_HEAD, ours):
            return
        if there.revision == epoch - 1 and self._completes(event, there):
            return
        if there.revision != epoch - 1:
            raise DivergenceError(
                f"{self._stream} begins at revision {there.revision}: the head of epoch {epoch}, which was "
                f"verified here, was taken out of it"
            )
        raise another_head(
            self._ledger,
            epoch,
            ours,
            there.data,
            f"{self._stream} has another head of epoch {epoch} than the one that was verified here, and the "
            f"directory has not signed it",
        )

    def _completes(self, ours: HeadEvent, there: Event) -> bool:
        """Return whether ``there`` is our head with checkpoints that a replay from tiles does not have."""
        try:
            found = HeadEvent.decode(there.data)
        except MalformedError:
            return False
        if there.type != MAP_HEAD or not ours.is_part_of(found):
            return False
        check_state(self._ledger.committed, found, config_chain(self._ledger, self._ledger.committed))
        return True

    def _missing(self, log: EventLog, epoch: int) -> UnavailableError | RollbackError:
        end = log.last_revision(self._stream) + 1
        if end >= epoch:
            # Between the two reads the stream grew, or the log became reachable.
            return UnavailableError(f"{self._stream}: the head of epoch {epoch} cannot be read now")
        return RollbackError(
            f"the log was rolled back: {self._stream} has no head of epoch {epoch}, which was verified here; "
            + (f"it ends with epoch {end}" if end else "it is empty or missing")
        )


def contradiction(
    ledger: Ledger, epoch: int, ours: bytes, theirs: bytes, configs: Sequence[SignedConfig]
) -> EquivocationError | None:
    """Return the error for two contradicting head events of ``epoch``, None if nothing is proven.

    The two events are a proof if the directory signed both. ``configs`` is its chain of configs, which has
    the keys.
    """
    origin = ledger.committed.standing.origin
    try:
        verified, found = (HeadEvent.decode(event, stored=True) for event in (ours, theirs))
    except MalformedError:
        return None
    error = contradicting_heads(_STEP, origin, configs, verified.smh_bytes, found.smh_bytes)
    for one, other in (
        (verified.heads_checkpoint, found.heads_checkpoint),
        (verified.mutations_checkpoint, found.mutations_checkpoint),
    ):
        if error is None and one and other:
            error = contradicting_checkpoints(_STEP, origin, configs, one, other)
    if error is None:
        return None
    return EquivocationError(
        _STEP,
        f"the log holds another signed head of epoch {epoch} than the one that was verified here: "
        f"{error.problem}",
        error.evidence,
    )


def another_head(
    ledger: Ledger, epoch: int, ours: bytes, theirs: bytes, problem: str
) -> EquivocationError | DivergenceError:
    """Return the contradiction of two head events, or else a ``DivergenceError`` with ``problem``."""
    # Before the first epoch there is no config, and no signature can be judged.
    configs = config_chain(ledger, ledger.committed) if ledger.committed.epoch else ()
    return contradiction(ledger, epoch, ours, theirs, configs) or DivergenceError(problem)


def _same(left: Event, right: Event) -> bool:
    return (left.revision, left.type, left.data) == (right.revision, right.type, right.data)
