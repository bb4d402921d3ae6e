"""The directory's configs as a data directory keeps them: every one that was ever accepted.

A config stands under ``config u64 epoch u64 sequence`` of the record that accepted it, in the family of
the commit. Like pages, it is written ahead of its epoch and counts once that epoch is committed.
"""

from __future__ import annotations

from kt_es.errors import DivergenceError, MalformedError, VerificationError
from kt_es.formats.configs import SignedConfig, check_config_change, check_first_config
from kt_es.formats.keys import PublicKey
from projections.ledger import META, Committed, Ledger
from projections.storage import Change

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


def check_chain(chain: tuple[SignedConfig, ...], origin: str, pinned: PublicKey) -> None:
    """Raises ``DivergenceError`` unless ``chain`` begins under ``pinned`` and each may follow the last."""
    try:
        current = check_first_config(chain[0], origin, pinned)
        for signed in chain[1:]:
            current = check_config_change(signed, current)
    except VerificationError as error:
        raise DivergenceError(f"the data directory has another config than this directory: {error}") from None
