"""The directory's chain of configs, and whether it is the chain of the key that the reader knows."""

from __future__ import annotations

from collections.abc import Sequence

from kt_es.errors import DivergenceError, MalformedError, VerificationError
from kt_es.formats.configs import SignedConfig, verify_chain
from kt_es.formats.heads import SignedMapHead
from kt_es.formats.keys import PublicKey
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.state import Committed


def config_chain(ledger: Ledger, committed: Committed) -> tuple[SignedConfig, ...]:
    """Return every config of the directory, the first one first, up to that in force for the coming epoch.

    Raises ``DivergenceError`` if the stored configs are incomplete or damaged.
    """
    try:
        chain = tuple(SignedConfig.decode(data) for data in ledger.tables.configs.up_to(committed.epoch))
    except MalformedError as error:
        raise DivergenceError(f"the data directory has a damaged config: {error}") from None
    in_force = committed.standing.config
    if not chain or in_force is None or chain[-1] != in_force:
        raise DivergenceError("the data directory lacks configs; delete it, and it is built again")
    return chain


def check_chain(chain: Sequence[SignedConfig], origin: str) -> None:
    """Raise ``DivergenceError`` unless ``chain`` begins ``origin`` and each config may follow the last.

    ``check_pinned`` checks that it is the chain of the right directory.
    """
    try:
        verify_chain(origin, chain)
    except VerificationError as error:
        raise DivergenceError(f"the data directory has another config than this directory: {error}") from None


def check_pinned(ledger: Ledger, *, in_force: bool = False) -> None:
    """Raise ``DivergenceError`` unless the pinned key signs for the directory that ``ledger`` follows.

    The pinned key may be the signer key of any config of the chain. Call this once everything that is
    published was replayed, since a rotation to the key may stand in any epoch. An empty ledger passes.

    Args:
        in_force: Require that the latest head is under the config of the pinned key or a later one. Without
            it, the next head may be the first such head.
    """
    committed = ledger.committed
    if committed.epoch:
        chain = config_chain(ledger, committed)
        config_hash = chain[-1].config.hash
        if in_force:
            event = ledger.tables.heads.event(committed.epoch)
            config_hash = SignedMapHead.decode(event.smh_bytes).head.config_hash
        check_key(chain, committed.epoch, config_hash, ledger.pinned)


def check_key(chain: Sequence[SignedConfig], epoch: int, config_hash: bytes, pinned: PublicKey) -> None:
    """Raise ``DivergenceError`` unless a config of ``chain`` has the signer key ``pinned``.

    The config with ``config_hash`` must be that one or a later one. The chain ends with ``epoch``.
    """
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
