"""Checks of a data directory before anybody follows or signs on top of it: it is one whole, signed epoch.

``check_commit`` compares the committed state with the head event that was stored with it. It reads a few
rows however large the map is; ``fsck`` reads everything.
"""

from __future__ import annotations

from collections.abc import Sequence

from kt_es.errors import DivergenceError, MalformedError, VerificationError
from kt_es.formats.checkpoints import Checkpoint, heads_origin, mutations_origin, open_checkpoint
from kt_es.formats.configs import Config, SignedConfig
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.ledger.configs import check_chain, config_chain
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.state import EMPTY_LOG, Committed
from kt_es.merkle.log import LogState
from kt_es.merkle.map import EMPTY_ROOT

HERE = "the data directory"


def check_commit(ledger: Ledger) -> None:
    """Compare the committed state with its head, its signatures and the root page of its map.

    ``check_pinned`` checks that the directory is the one of the pinned key.

    Raises:
        DivergenceError: The first field that differs, with its value and what it must be.
    """
    committed = ledger.committed
    if committed.epoch == 0:
        _check_nothing(committed)
        return
    check_state(committed, ledger.tables.heads.event(committed.epoch), config_chain(ledger, committed))
    # Any index: the path of each begins at the root page, which has to hash to the root.
    ledger.map.prove(committed.root, bytes(32))


def check_state(committed: Committed, event: HeadEvent, chain: Sequence[SignedConfig]) -> None:
    """Compare a state of epoch 1 or later with the head event that sealed it, without a store.

    ``chain`` has the directory's configs up to the one in force for the coming epoch. ``records_next`` is the
    one field that no head has. Raises ``DivergenceError`` like ``check_commit``.
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
            raise DivergenceError(f"{where}: {name} is {shown(here)}, must be {shown(must)} by its head")
    if committed.root.version > committed.epoch:
        raise DivergenceError(f"{where}: map_root is of epoch {committed.root.version}, which is to come")
    if not 0 < committed.records_next <= committed.log.size:
        raise DivergenceError(
            f"{where}: records_next is {committed.records_next}, must be 1 to {committed.log.size}: "
            f"one event for each record at most"
        )
    config = _config_of(chain, head.config_hash, where)
    check_signatures(event, smh, committed.log, committed.heads, config, where=f"{where}: the stored head")


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


def check_signatures(
    event: HeadEvent, smh: SignedMapHead, log: LogState, heads: LogState, config: Config, *, where: str
) -> None:
    """Verify the signatures of a head event, and compare its two checkpoints with the logs.

    Args:
        smh: The decoded ``event.smh_bytes``.
        log: The log of mutations at the end of the head's epoch.
        heads: The log of heads, with this head.
        config: The config in force, whose key signed the event.

    Raises:
        DivergenceError: ``where`` begins its message.
    """
    logs = (
        (event.heads_checkpoint, heads_origin(config.origin), heads),
        (event.mutations_checkpoint, mutations_origin(config.origin), log),
    )
    try:
        smh.verify(config.origin, config.signer_key)
        for text, origin, state in logs:
            signed = open_checkpoint(text, origin, [config.signer_key.raw])
            if signed != Checkpoint(origin, state.size, state.root()):
                raise DivergenceError(
                    f"{where}: the checkpoint of {origin} is not of these records: its root is "
                    f"{signed.root.hex()} at {signed.size}, must be {state.root().hex()} at {state.size}"
                )
    except (MalformedError, VerificationError) as error:
        raise DivergenceError(f"{where}: {error}") from None


def shown(value: object) -> str:
    """Return a field's value for a message; bytes in hex."""
    return value.hex() if isinstance(value, bytes) else str(value)
