"""What a client holds on to between two answers: whom it pinned, and the last checkpoint it trusted.

Pure. ``Trusted`` only ever grows: a longer chain of configs, a later config in force, a larger log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kt_es.crypto.signatures import ED25519
from kt_es.errors import ConfigError, EquivocationError, MalformedError, VerificationError
from kt_es.formats.checkpoints import Checkpoint, heads_origin, open_checkpoint
from kt_es.formats.codec import decode, encode, take_array, take_bytes, take_text, take_uint
from kt_es.formats.configs import Config, SignedConfig, check_config_change, check_first_config, check_origin
from kt_es.formats.heads import MAX_CHECKPOINT
from kt_es.formats.keys import PublicKey, take_public_key
from kt_es.formats.notes import VerifierKey, verifier_key
from kt_es.formats.proofs import decode_configs, encode_configs
from kt_es.merkle.verify import log_root_from_consistency

TRUSTED_FILE = "kt-es trusted v1"
MAX_TRUSTED_FILE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pinned:
    """A directory as somebody vouches for it: its origin and one of its signer keys."""

    origin: str
    key: PublicKey

    @property
    def vkey(self) -> str:
        """The pin as a C2SP verifier key, ``<origin>/heads+hash+base64``: what people pass on."""
        return verifier_key(heads_origin(self.origin), self.key.raw).encode()

    @classmethod
    def parse(cls, vkey: str) -> Pinned:
        """The pin written as ``vkey``. Raises ``ConfigError``: it comes from an option or a file."""
        try:
            parsed = VerifierKey.parse(vkey.strip())
            origin = check_origin(parsed.name.removesuffix("/heads"))
        except MalformedError as error:
            raise ConfigError(f"the directory's verifier key is unusable: {error}") from None
        if heads_origin(origin) != parsed.name:
            raise ConfigError(f"the directory's verifier key names {parsed.name}, not an origin and /heads")
        return cls(origin, PublicKey(ED25519, parsed.key))


@dataclass(frozen=True, slots=True)
class Trusted:
    """The state of a client towards one directory.

    ``key`` is the pinned one; ``configs`` the verified chain, the first one first; ``in_force`` the
    position in it of the config of the latest head verified: what older signer keys sign about newer
    epochs no longer counts. ``checkpoint`` is the last trusted one of the log of map heads.
    """

    origin: str
    key: PublicKey
    configs: tuple[SignedConfig, ...]
    in_force: int
    checkpoint: str | None

    @property
    def pinned(self) -> Pinned:
        return Pinned(self.origin, self.key)

    @property
    def size(self) -> int:
        """Heads in the trusted checkpoint; 0 before the first one."""
        opened = self.opened()
        return 0 if opened is None else opened.size

    def opened(self) -> Checkpoint | None:
        """The trusted checkpoint, its signature verified again."""
        return None if self.checkpoint is None else self.open(self.checkpoint, self.in_force)

    def open(self, checkpoint: str, since: int, log: str | None = None) -> Checkpoint:
        """Step "checkpoint": ``checkpoint`` signed by a signer key of the configs from ``since`` on.

        ``log`` is the origin of the log that it is of, by default the log of map heads.
        """
        keys = [signed.config.signer_key.raw for signed in self.configs[since:]]
        try:
            return open_checkpoint(checkpoint, log or heads_origin(self.origin), keys)
        except MalformedError as error:
            raise VerificationError("checkpoint", str(error)) from None

    def position(self, config_hash: bytes) -> int:
        """Step "config": where the config that a head names stands in the verified chain."""
        for position, signed in enumerate(self.configs):
            if signed.config.hash == config_hash:
                return position
        raise VerificationError("config", "the head names a config that is not in the directory's chain")

    def encode(self) -> bytes:
        return encode(
            [
                TRUSTED_FILE,
                self.origin,
                self.key.fields(),
                encode_configs(self.configs),
                self.in_force,
                self.checkpoint,
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> Trusted:
        """Raises ``MalformedError``. Configs are only read: the file is the reader's own."""
        kind, origin, key, configs, in_force, checkpoint = take_array(
            decode(data, "trusted state"), "trusted state", 6
        )
        if kind != TRUSTED_FILE:
            raise MalformedError("trusted state", f"must begin with {TRUSTED_FILE!r}")
        chain = decode_configs(take_bytes(configs, "trusted state configs", 1, MAX_TRUSTED_FILE))
        return cls(
            check_origin(take_text(origin, "trusted state origin", 1, 255)),
            take_public_key(key, "trusted state key"),
            chain,
            take_uint(in_force, "trusted state in_force", 0, len(chain) - 1),
            None
            if checkpoint is None
            else take_text(checkpoint, "trusted state checkpoint", 1, MAX_CHECKPOINT),
        )


def verify_configs(pinned: Pinned, configs: Sequence[SignedConfig]) -> tuple[Config, ...]:
    """Step "config": the configs of a chain that begins the directory and holds the pinned key.

    The first is signed by its own signer key, each change by the key in force and its own. Only the
    holder of the pinned key can have put it into the chain, and with it all that precedes it.
    """
    chain: list[Config] = []
    for signed in configs:
        if chain:
            chain.append(check_config_change(signed, chain[-1]))
        else:
            chain.append(check_first_config(signed, pinned.origin, signed.config.signer_key))
    if pinned.key not in [config.signer_key for config in chain]:
        raise VerificationError("config", "the pinned key is the signer key of none of the configs")
    return tuple(chain)


def first_use(configs: Sequence[SignedConfig]) -> Pinned:
    """The pin of somebody who has none: origin and signer key of the directory's first config."""
    if not configs:
        raise VerificationError("config", "the directory has none")
    return Pinned(configs[0].config.origin, configs[0].config.signer_key)


def begin(pinned: Pinned, configs: Sequence[SignedConfig]) -> Trusted:
    """The state of a client that has seen no checkpoint yet."""
    verify_configs(pinned, configs)
    return Trusted(pinned.origin, pinned.key, tuple(configs), 0, None)


def extend(trusted: Trusted, configs: Sequence[SignedConfig]) -> Trusted:
    """``trusted`` with a chain that goes on from its own; one that is only shorter changes nothing.

    Raises ``EquivocationError`` for another valid chain: the directory signed two.
    """
    verify_configs(trusted.pinned, configs)
    for known, told in zip(trusted.configs, configs, strict=False):
        if known.config_bytes != told.config_bytes:
            raise EquivocationError("config", "two different chains of configs are signed by the directory")
    if len(configs) <= len(trusted.configs):
        return trusted
    return replace(trusted, configs=tuple(configs))


def verify_consistency(old: Checkpoint | None, new: Checkpoint, proof: Sequence[bytes]) -> None:
    """Step "consistency": the log at ``new`` goes on from the log at ``old``, both validly signed.

    Two roots of one size contradict each other: ``EquivocationError``. A proof that leads elsewhere
    shows only that it is no proof. A smaller log is the step "rollback".
    """
    if old is None or old.size == 0:
        if proof:
            raise VerificationError("consistency", "nothing is trusted yet, but the proof is not empty")
        return
    if new.size < old.size:
        raise VerificationError(
            "rollback", f"the log has {new.size} heads, though {old.size} have been trusted before"
        )
    if new.size == old.size and new.root != old.root:
        raise EquivocationError(
            "consistency", f"two different logs of {new.size} heads are signed by the directory"
        )
    try:
        root = log_root_from_consistency(old.size, new.size, old.root, proof)
    except (MalformedError, VerificationError) as error:
        raise VerificationError("consistency", error.problem) from None
    if root != new.root:
        raise VerificationError(
            "consistency", f"the proof does not lead from {old.size} heads to the {new.size} that are signed"
        )


def merge(stored: Trusted, other: Trusted, proof: Sequence[bytes]) -> Trusted:
    """The later of two states of one client, reached at the same time; ``proof`` leads to its log.

    Two lookups can verify against the same trusted checkpoint and meet only here: each is consistent
    with the past, and this checks that they are so with each other.
    """
    ours = extend(stored, other.configs)
    earlier, later = sorted((ours, other), key=lambda trusted: trusted.size)
    before, after = earlier.opened(), later.opened()
    if after is not None:
        verify_consistency(before, after, proof)
    merged = replace(ours, in_force=max(stored.in_force, other.in_force), checkpoint=later.checkpoint)
    merged.opened()
    return merged
