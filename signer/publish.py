"""Publishing to the two logs: exactly once, exactly there, or not at all.

The exact expected revision is the fence between signers. If the stream already holds what is about to
be written (a crash before the commit, a second signer, an append whose answer was lost), publishing
goes on; if it holds something else, it stops: two truths must never be published.
"""

from __future__ import annotations

from collections.abc import Sequence

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import DivergenceError, WrongRevisionError
from kt_es.eventstore.streams import EventLog, NewEvent
from kt_es.formats.checkpoints import Checkpoint, heads_origin, mutations_origin, sign_checkpoint
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from projections.ledger import Committed


def publish(log: EventLog, stream: str, revision: int, events: Sequence[NewEvent]) -> None:
    """Make ``events`` stand in ``stream`` from ``revision`` on.

    Raises ``DivergenceError`` if something else stands there, ``UnavailableError`` if the outcome is
    unknown: then the same call is repeated.
    """
    remaining = list(events)
    while remaining:
        try:
            log.append(stream, revision - 1, remaining)
            return
        except WrongRevisionError:
            standing = list(log.read(stream, revision, len(remaining)))
        if not standing:
            # Neither appended nor there: the stream is shorter than the ledger says it was.
            raise DivergenceError(
                f"{stream} has lost events: it ends before revision {revision}, which follows what "
                f"was committed here"
            )
        for there, ours in zip(standing, remaining, strict=False):
            if (there.type, there.data) != (ours.type, ours.data):
                raise DivergenceError(
                    f"{stream}, revision {there.revision}: another {there.type} event stands where this "
                    f"signer would publish its own; it stops and publishes nothing"
                )
        revision += len(standing)
        remaining = remaining[len(standing) :]


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


def check_published(log: EventLog, stream: str, committed: Committed, ours: HeadEvent | None) -> None:
    """Compare the last committed head with the one in the stream, before anything is published.

    Raises ``DivergenceError`` if it is missing there or another one: this data directory and this log
    do not belong together.
    """
    if ours is None:
        return
    event = next(iter(log.read(stream, committed.epoch - 1, 1)), None)
    if event is None:
        raise DivergenceError(f"{stream} has no head of epoch {committed.epoch}, which was committed here")
    if event.data != ours.encode():
        raise DivergenceError(f"{stream} has another head of epoch {committed.epoch} than this signer's own")
