"""The anchor: the last head that was verified here, which the log must still hold.

docs/DESIGN.md, section 9.

Whoever follows a directory compares first: at its start, after each connection, and at each head. The
stream of heads has to hold, at the place of the anchor, the same bytes. A stream that ends before it was
rolled back; another head of this directory there is a contradiction, and both heads are its evidence.
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
    """The last committed head of ``ledger``, compared with the stream of heads.

    Every method raises ``RollbackError`` if the stream ends before the anchor, ``EquivocationError`` if
    another head that the directory signed stands in its place, and ``DivergenceError`` for anything else
    there. An empty ledger has no anchor: then nothing is compared.
    """

    def __init__(self, names: StreamNames, ledger: Ledger) -> None:
        self._stream = names.heads
        self._ledger = ledger

    def check(self, log: EventLog) -> None:
        """Compare the anchor: one read of one event."""
        if self._ledger.committed.epoch:
            self._compare(log, self._read(log, 1)[:1])

    def published(self, log: EventLog) -> Iterator[Event]:
        """The heads after the anchor to the end of the stream as it is now.

        The same read begins with the anchor, so the comparison costs nothing for each head.
        """
        epoch = self._ledger.committed.epoch
        events = iter(log.read(self._stream, max(0, epoch - 1)))
        if epoch:
            first = next(events, None)
            self._compare(log, [] if first is None else [first])
        yield from events

    def check_delivered(self, log: EventLog, event: Event) -> None:
        """Compare the anchor, and the next head with ``event``, which a subscription delivered.

        One read of two events.
        """
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
        problem = f"{self._stream} has another head of epoch {epoch + 1} than a subscription to it delivered"
        raise (
            contradiction(self._ledger, epoch + 1, event.data, found[0].data, _configs(self._ledger))
            or DivergenceError(problem)
        )

    def _read(self, log: EventLog, count: int) -> list[Event]:
        return list(log.read(self._stream, max(0, self._ledger.committed.epoch - 1), count))

    def _compare(self, log: EventLog, found: Sequence[Event]) -> None:
        epoch = self._ledger.committed.epoch
        if not found:
            self._explain(log, epoch)
        ours, there = self._ledger.tables.heads.event(epoch).encode(), found[0]
        if (there.revision, there.type, there.data) == (epoch - 1, MAP_HEAD, ours):
            return
        if there.revision != epoch - 1:
            raise DivergenceError(
                f"{self._stream} begins at revision {there.revision}: the head of epoch {epoch}, which was "
                f"verified here, was taken out of it"
            )
        raise (
            contradiction(self._ledger, epoch, ours, there.data, _configs(self._ledger))
            or DivergenceError(
                f"{self._stream} has another head of epoch {epoch} than the one that was verified here, and "
                f"the directory has not signed it"
            )
        )

    def _explain(self, log: EventLog, epoch: int) -> None:
        end = log.last_revision(self._stream) + 1
        if end >= epoch:
            # The stream grew, or the log came back, between the two questions.
            raise UnavailableError(f"{self._stream}: the head of epoch {epoch} cannot be read now")
        raise RollbackError(
            f"the log was rolled back: {self._stream} has no head of epoch {epoch}, which was verified here; "
            + (f"it ends with epoch {end}" if end else "it is empty or missing")
        )


def contradiction(
    ledger: Ledger, epoch: int, ours: bytes, theirs: bytes, configs: Sequence[SignedConfig]
) -> EquivocationError | None:
    """The error for two head events of ``epoch``, if the directory signed both and they contradict.

    ``configs`` is the chain that says which keys sign for the directory. None if there is no proof.
    """
    origin = ledger.committed.standing.origin
    try:
        one, other = HeadEvent.decode(ours), HeadEvent.decode(theirs)
    except MalformedError:
        return None
    found = (
        contradicting_heads(_STEP, origin, configs, one.smh_bytes, other.smh_bytes)
        or contradicting_checkpoints(_STEP, origin, configs, one.heads_checkpoint, other.heads_checkpoint)
        or contradicting_checkpoints(
            _STEP, origin, configs, one.mutations_checkpoint, other.mutations_checkpoint
        )
    )
    if found is None:
        return None
    return EquivocationError(
        _STEP,
        f"the log holds another signed head of epoch {epoch} than the one that was verified here: "
        f"{found.problem}",
        found.evidence,
    )


def _configs(ledger: Ledger) -> Sequence[SignedConfig]:
    """The chain of configs, nothing before the first epoch: then no signature can be judged."""
    return config_chain(ledger, ledger.committed) if ledger.committed.epoch else ()


def _same(one: Event, other: Event) -> bool:
    return (one.revision, one.type, one.data) == (other.revision, other.type, other.data)


# What a process that follows the log may find wrong with it for good.
WRONG_LOG = (DivergenceError, VerificationError)
