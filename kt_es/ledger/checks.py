"""What a data directory must be before anybody follows or signs on top of it: one epoch, whole and signed.

``check_commit`` holds the committed state against the head event that was stored with it. It reads a
handful of keys however large the map is; ``fsck`` reads everything.
"""

from __future__ import annotations

from collections.abc import Sequence

from kt_es.errors import DivergenceError, MalformedError, VerificationError
from kt_es.formats.checkpoints import Checkpoint, heads_origin, mutations_origin, open_checkpoint
from kt_es.formats.configs import Config, SignedConfig
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.ledger.configs import check_chain, config_chain
from kt_es.ledger.ledger import EMPTY_LOG, Committed, Ledger
from kt_es.merkle.map import EMPTY_ROOT

HERE = "the data directory"


def check_commit(ledger: Ledger) -> None:
    """Compare the committed state with its head, its signatures and the root page of its map.

    That the directory is the one of the key that the reader knows is not asked: see ``check_pinned``.

    Raises ``DivergenceError`` naming the first field that differs, what it is and what it must be.
    """
    committed = ledger.committed
    if committed.epoch == 0:
        _check_nothing(committed)
        return
    check_state(committed, stored_head(ledger, committed.epoch), config_chain(ledger, committed))
    # Any index: the path of each begins at the root page, which has to hash to the root.
    ledger.map.prove(committed.root, bytes(32))


def stored_head(ledger: Ledger, epoch: int) -> HeadEvent:
    """The head event of ``epoch`` as it is stored, ``DivergenceError`` if it is missing or damaged."""
    try:
        event = ledger.head_event(epoch)
    except MalformedError as error:
        raise DivergenceError(f"{HERE}: the head of epoch {epoch} is damaged: {error}") from None
    if event is None:
        raise DivergenceError(f"{HERE} says it is at epoch {epoch}, but has no head of that epoch")
    return event


def check_state(committed: Committed, event: HeadEvent, chain: Sequence[SignedConfig]) -> None:
    """Compare a state of epoch 1 or later with the head event that sealed it, without any storage.

    ``chain`` are the directory's configs up to the one in force for the coming epoch. The position in the
    log of mutations' stream is the one field that no head has. Errors as above.
    """
    standing = committed.standing
    where = f"{HERE}, epoch {committed.epoch}"
    check_chain(chain, standing.origin)
    try:
        smh = SignedMapHead.decode(event.smh_bytes)
    except MalformedError as error:
        raise DivergenceError(f"{where}: the stored head is damaged: {error}") from None
    head = smh.head
    fields: tuple[tuple[str, object, object], ...] = (
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
    for name, here, must in fields:
        if here != must:
            raise DivergenceError(f"{where}: {name} is {_shown(here)}, must be {_shown(must)} by its head")
    if committed.root.version > committed.epoch:
        raise DivergenceError(f"{where}: map_root is of epoch {committed.root.version}, which is to come")
    if not 0 < committed.records_next <= committed.log.size:
        raise DivergenceError(
            f"{where}: records_next is {committed.records_next}, must be 1 to {committed.log.size}: "
            f"one event for each record at most"
        )
    config = _config_of(chain, head.config_hash, where)
    _check_signatures(committed, event, smh, config, where)


def _check_nothing(committed: Committed) -> None:
    fields: tuple[tuple[str, object, object], ...] = (
        ("map_root", committed.root, EMPTY_ROOT),
        ("log_size", committed.log, EMPTY_LOG),
        ("size of the log of heads", committed.heads, EMPTY_LOG),
        ("queue_next", committed.queue_next, 0),
        ("records_next", committed.records_next, 0),
        ("timestamp", committed.standing.timestamp, 0),
        ("config", committed.standing.config, None),
    )
    for name, here, must in fields:
        if here != must:
            raise DivergenceError(f"{HERE}, epoch 0: {name} is {here}, must be {must} before the first epoch")


def _config_of(chain: Sequence[SignedConfig], config_hash: bytes, where: str) -> Config:
    """The config that was in force when the head was signed: a change holds from the next epoch on."""
    for signed in reversed(chain):
        if signed.config.hash == config_hash:
            return signed.config
    raise DivergenceError(
        f"{where}: the config in force is {chain[-1].config.hash.hex()}, neither it nor one before it is "
        f"{config_hash.hex()}, as its head says"
    )


def _check_signatures(
    committed: Committed, event: HeadEvent, smh: SignedMapHead, config: Config, where: str
) -> None:
    origin, key = committed.standing.origin, config.signer_key
    logs = (
        (
            event.heads_checkpoint,
            Checkpoint(heads_origin(origin), committed.heads.size, committed.heads.root()),
        ),
        (
            event.mutations_checkpoint,
            Checkpoint(mutations_origin(origin), committed.log.size, committed.log.root()),
        ),
    )
    try:
        smh.verify(origin, key)
        for text, ours in logs:
            signed = open_checkpoint(text, ours.origin, [key.raw])
            if signed != ours:
                raise DivergenceError(
                    f"{where}: root of {ours.origin} is {ours.root.hex()} at {ours.size}, must be "
                    f"{signed.root.hex()} at {signed.size} by its checkpoint"
                )
    except (MalformedError, VerificationError) as error:
        raise DivergenceError(f"{where}: the stored head: {error}") from None


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
