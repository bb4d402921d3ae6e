"""Publishing to the two logs: exactly once, exactly there, or not at all.

The exact expected revision is the fence between signers. If the stream already holds what is about to
be written (a crash before the commit, a second signer, an append whose answer was lost), publishing
goes on; if it holds something else, it stops: two truths must never be published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from kt_es.eventstore.streams import EventLog, NewEvent, StreamNames
from kt_es.formats.checkpoints import Checkpoint, heads_origin, mutations_origin, sign_checkpoint
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.records import RECORDS, decode_records
from kt_es.ledger.anchor import Anchor
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.state import Committed
from kt_es.ledger.tables import MUTATIONS_LOG


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
