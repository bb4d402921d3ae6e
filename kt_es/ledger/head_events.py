"""Head events: the config that was in force, the signatures, and the checkpoints of both logs."""

from __future__ import annotations

from collections.abc import Sequence

from kt_es.errors import DivergenceError, MalformedError, VerificationError
from kt_es.formats.configs import Config, SignedConfig
from kt_es.formats.heads import (
    Checkpoint,
    HeadEvent,
    SignedMapHead,
    heads_origin,
    mutations_origin,
    open_checkpoint,
)
from kt_es.merkle.log import LogState


def config_of(chain: Sequence[SignedConfig], config_hash: bytes, where: str) -> Config:
    """Return the config of ``chain`` that was in force when the head was signed.

    The last config of the chain may be newer than that, since a change holds from the next epoch on.
    """
    for signed in reversed(chain):
        if signed.config.hash == config_hash:
            return signed.config
    raise DivergenceError(
        f"{where}: it names the config {config_hash.hex()}, which is not in the chain of configs that ends "
        f"with {chain[-1].config.hash.hex()}"
    )


Sealed = tuple[int, bytes]
"""The size and the root of a log, as a checkpoint seals them."""


def sealed(log: LogState) -> Sealed:
    return log.size, log.root()


def check_signatures(
    event: HeadEvent, smh: SignedMapHead, log: Sealed, heads: Sealed, config: Config, *, where: str
) -> None:
    """Verify the signatures of a head event, and compare its two checkpoints with the logs.

    Args:
        log: The log of mutations at the end of the head's epoch.
        heads: The log of heads, with this head.
        config: The config in force, whose key signed the event.

    Raises:
        DivergenceError: ``where`` begins its message.
    """
    try:
        smh.verify(config.origin, config.signer_key)
    except (MalformedError, VerificationError) as error:
        raise DivergenceError(f"{where}: {error}") from None
    check_checkpoints(event, log, heads, config, where=where)


def check_checkpoints(event: HeadEvent, log: Sealed, heads: Sealed, config: Config, *, where: str) -> None:
    """Do the part of ``check_signatures`` that is about the checkpoints. One that is empty is left out."""
    logs = (
        (event.heads_checkpoint, heads_origin(config.origin), heads),
        (event.mutations_checkpoint, mutations_origin(config.origin), log),
    )
    try:
        for text, origin, (size, root) in logs:
            if not text:
                continue
            signed = open_checkpoint(text, origin, [config.signer_key.raw])
            if signed != Checkpoint(origin, size, root):
                raise DivergenceError(
                    f"{where}: the checkpoint of {origin} is not of these records: its root is "
                    f"{signed.root.hex()} at {signed.size}, must be {root.hex()} at {size}"
                )
    except (MalformedError, VerificationError) as error:
        raise DivergenceError(f"{where}: {error}") from None
