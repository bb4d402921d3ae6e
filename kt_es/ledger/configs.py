"""The directory's configs as a data directory keeps them: every one that was ever accepted.

A config stands under ``config u64 epoch u64 sequence`` of the record that accepted it, in the family of
the commit. Like pages, it is written ahead of its epoch and counts once that epoch is committed.
"""

from __future__ import annotations

from collections.abc import Sequence

from kt_es.errors import DivergenceError, MalformedError, VerificationError
from kt_es.formats.configs import SignedConfig, verify_chain
from kt_es.formats.heads import SignedMapHead
from kt_es.formats.keys import PublicKey
from kt_es.ledger.ledger import META, Committed, Ledger
from kt_es.ledger.store import Change

CONFIG = b"config "


def config_change(epoch: int, sequence: int, data: bytes) -> Change:
    """What keeps the signed config ``data`` that record ``sequence`` of ``epoch`` accepted."""
    return (META, CONFIG + epoch.to_bytes(8) + sequence.to_bytes(8), data)


def config_epoch(key: bytes) -> int:
    """The epoch in the key of a config."""
    return int.from_bytes(key[len(CONFIG) : len(CONFIG) + 8])


def config_chain(ledger: Ledger, committed: Committed) -> tuple[SignedConfig, ...]:
    """Every config of the directory, the first one first, up to that in force for the coming epoch.

    Raises ``DivergenceError`` if what is kept of them is incomplete or damaged.
    """
    try:
        chain = tuple(
            SignedConfig.decode(data)
            for key, data in ledger.store.scan(META, CONFIG)
            if config_epoch(key) <= committed.epoch
        )
    except MalformedError as error:
        raise DivergenceError(f"the data directory has a damaged config: {error}") from None
    in_force = committed.standing.config
    if not chain or in_force is None or chain[-1] != in_force:
        raise DivergenceError("the data directory lacks configs; delete it, and it is built again")
    return chain


def check_chain(chain: Sequence[SignedConfig], origin: str) -> None:
    """Raises ``DivergenceError`` unless ``chain`` begins ``origin`` and each config may follow the last.

    Whether it is the chain of the right directory, ``check_pinned`` says.
    """
    try:
        verify_chain(origin, chain)
    except VerificationError as error:
        raise DivergenceError(f"the data directory has another config than this directory: {error}") from None


def check_pinned(ledger: Ledger, *, in_force: bool = False) -> None:
    """Require that the key the reader knows signs for the directory that was replayed into ``ledger``.

    It may be the signer key of any config of the chain. With ``in_force`` the latest head must be under
    that config or a later one; without, the next head may be the first one. To be asked when everything
    that is published was replayed: a rotation to the key may stand in any epoch.

    Raises ``DivergenceError`` otherwise. An empty ledger holds no directory yet, and passes.
    """
    committed = ledger.committed
    if committed.epoch:
        chain = config_chain(ledger, committed)
        config_hash = chain[-1].config.hash
        event = ledger.head_event(committed.epoch) if in_force else None
        if event is not None:
            config_hash = SignedMapHead.decode(event.smh_bytes).head.config_hash
        check_key(chain, committed.epoch, config_hash, ledger.pinned)


def check_key(chain: Sequence[SignedConfig], epoch: int, config_hash: bytes, pinned: PublicKey) -> None:
    """``check_pinned`` for a chain up to ``epoch``: ``config_hash`` is under ``pinned`` or comes after it."""
    configs = [signed.config for signed in chain]
    first = next((at for at, config in enumerate(configs) if config.signer_key == pinned), None)
    if first is None:
        signers = dict.fromkeys(config.signer_key.id.hex() for config in configs)
        raise DivergenceError(
            f"the key {pinned.id.hex()} never was a signer key of {configs[0].origin}: its configs up to "
            f"epoch {epoch} name {', '.join(signers)}. "
            f"This is another directory than the one of that key, or an older state of it"
        )
    if all(config.hash != config_hash for config in configs[first:]):
        raise DivergenceError(
            f"the key {pinned.id.hex()} becomes the signer key of {configs[0].origin} after epoch {epoch}: "
            f"no head is signed under its config yet"
        )
