"""The anchor: the last head that was verified here, which the log must still hold.

See docs/DESIGN.md, section 9. Every follower of a directory compares the anchor first: at its start, after
each connection, and at each head. In the anchor's place, the stream of heads must have the same bytes. A
stream that ends before that place was rolled back. Another head of this directory there is a contradiction,
and both heads are its evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
from kt_es.formats.heads import MAP_HEAD, HeadEvent
from kt_es.ledger.configs import config_chain
from kt_es.ledger.ledger import Ledger

_STEP = "log of heads"


class Anchor:
    """Compares the last committed head of ``ledger`` with the stream of heads.

    An empty ledger has no anchor: then nothing is compared. Every method may raise:
        RollbackError: The stream ends before the anchor.
        EquivocationError: Another head that the directory signed stands in the place of the anchor.
        DivergenceError: Anything else stands there.
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
        ours, there = self._ledger.tables.heads.event(epoch).encode(), found[0]
        if (there.revision, there.type, there.data) == (epoch - 1, MAP_HEAD, ours):
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

    def _missing(self, log: EventLog, epoch: int) -> UnavailableError | RollbackError:
        end = log.last_revision(self._stream) + 1
        if end >= epoch:
            # The stream grew, or the log came back, between the two reads.
            return UnavailableError(f"{self._stream}: the head of epoch {epoch} cannot be read now")
        return RollbackError(
            f"the log was rolled back: {self._stream} has no head of epoch {epoch}, which was verified here; "
            + (f"it ends with epoch {end}" if end else "it is empty or missing")
        )


def contradiction(
    ledger: Ledger, epoch: int, ours: bytes, theirs: bytes, configs: Sequence[SignedConfig]
) -> EquivocationError | None:
    """Return the error for two head events of ``epoch`` that contradict, None if there is no proof.

    It is a proof if the directory signed both; ``configs`` is its chain of configs, which has the keys.
    """
    origin = ledger.committed.standing.origin
    try:
        verified, found = HeadEvent.decode(ours), HeadEvent.decode(theirs)
    except MalformedError:
        return None
    error = (
        contradicting_heads(_STEP, origin, configs, verified.smh_bytes, found.smh_bytes)
        or contradicting_checkpoints(
            _STEP, origin, configs, verified.heads_checkpoint, found.heads_checkpoint
        )
        or contradicting_checkpoints(
            _STEP, origin, configs, verified.mutations_checkpoint, found.mutations_checkpoint
        )
    )
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


# The errors after which a follower must not go on: the log is wrong, whatever is tried again.
WRONG_LOG = (DivergenceError, VerificationError)
