"""The trusted state of a client between two answers: the pinned key and the last trusted log. Pure.

``Trusted`` only grows: a longer chain of configs, a later config in force, a larger log. The encoding is
``["kt-es trusted v2", origin, key, configs, in_force, checkpoint / null, smh / null]``. Version 1 had no SMH
and is still read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kt_es.crypto.signatures import ED25519
from kt_es.errors import ConfigError, MalformedError, VerificationError
from kt_es.evidence import contradicting_configs
from kt_es.formats.codec import decode, encode, take_array, take_bytes, take_text, take_uint
from kt_es.formats.configs import SignedConfig, check_origin, verify_chain
from kt_es.formats.entries import PublicKey, take_public_key
from kt_es.formats.heads import MAX_CHECKPOINT, MAX_SMH, Checkpoint, heads_origin, open_checkpoint
from kt_es.formats.notes import VerifierKey, parse_note, verifier_key
from kt_es.formats.proofs import decode_configs, encode_configs

TRUSTED_FILE = "kt-es trusted v2"
_TRUSTED_FILE_1 = "kt-es trusted v1"
MAX_TRUSTED_FILE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pinned:
    """The pinned key: the origin of a directory and one of its signer keys, for which somebody vouches."""

    origin: str
    key: PublicKey

    @property
    def vkey(self) -> str:
        """The pinned key as a C2SP verifier key, ``<origin>/heads+hash+base64``, for people to pass on."""
        return verifier_key(heads_origin(self.origin), self.key.raw).encode()

    @classmethod
    def parse(cls, vkey: str) -> Pinned:
        """Parse a C2SP verifier key. Raises ``ConfigError``, because it comes from an option or a file."""
        try:
            parsed = VerifierKey.parse(vkey.strip())
            origin = check_origin(parsed.name.removesuffix("/heads"))
        except MalformedError as error:
            raise ConfigError(
                f"the directory's verifier key is unusable: {error}; copy it as its operator published it"
            ) from None
        if heads_origin(origin) != parsed.name:
            raise ConfigError(
                f"the directory's verifier key names {parsed.name}, must name an origin and /heads; "
                "take the key that `kt init` or `kt status` shows"
            )
        return cls(origin, PublicKey(ED25519, parsed.key))


@dataclass(frozen=True, slots=True)
class Trusted:
    """The state of a client towards one directory.

    Attributes:
        configs: The verified chain of configs, oldest first.
        in_force: Position in ``configs`` of the pinned key, or of a later config that the latest verified
            head names. Signatures of older signer keys about the latest epoch do not count.
        checkpoint: The last trusted checkpoint of the log of map heads.
        smh: The last head that was verified as the latest of its log.
    """

    origin: str
    key: PublicKey
    configs: tuple[SignedConfig, ...]
    in_force: int
    checkpoint: str | None
    smh: bytes | None = None

    @property
    def pinned(self) -> Pinned:
        return Pinned(self.origin, self.key)

    @property
    def size(self) -> int:
        """Heads in the trusted checkpoint; 0 before the first one."""
        return 0 if self.checkpoint is None else claimed_size(self.checkpoint)

    def open(self, checkpoint: str, since: int, log: str | None = None) -> Checkpoint:
        """Step "checkpoint": a signer key of the configs from ``since`` on signed ``checkpoint`` of ``log``.

        By default the log is that of map heads.
        """
        try:
            return self._open(checkpoint, self.configs[since:], log)
        except VerificationError:
            if since == 0:
                raise
            self._open(checkpoint, self.configs[:since], log)
            raise VerificationError(
                "checkpoint", "is signed by a key that the directory has replaced since"
            ) from None

    def _open(self, checkpoint: str, configs: Sequence[SignedConfig], log: str | None) -> Checkpoint:
        keys = [signed.config.signer_key.raw for signed in configs]
        try:
            return open_checkpoint(checkpoint, log or heads_origin(self.origin), dict.fromkeys(keys))
        except MalformedError as error:
            raise VerificationError("checkpoint", str(error)) from None

    def signed_at(self, checkpoint: str) -> int:
        """Return the first position, from ``in_force`` on, whose signer key signed ``checkpoint``."""
        for position in range(self.in_force, len(self.configs) - 1):
            try:
                self._open(checkpoint, self.configs[position : position + 1], None)
            except VerificationError:
                continue
            return position
        return len(self.configs) - 1

    def position(self, config_hash: bytes) -> int:
        """Step "config": position in the verified chain of the config that a head names."""
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
                self.smh,
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> Trusted:
        """Raises ``MalformedError``. The chain is not verified again: the file is the reader's own."""
        fields = take_array(decode(data, "trusted state"), "trusted state", 6, 7)
        kind, origin, key, configs, in_force, checkpoint = fields[:6]
        if kind != (_TRUSTED_FILE_1 if len(fields) == 6 else TRUSTED_FILE):
            raise MalformedError("trusted state", f"must begin with {TRUSTED_FILE!r}")
        smh = None if len(fields) == 6 else fields[6]
        chain = decode_configs(take_bytes(configs, "trusted state configs", 1, MAX_TRUSTED_FILE))
        trusted = cls(
            check_origin(take_text(origin, "trusted state origin", 1, 255)),
            take_public_key(key, "trusted state key"),
            chain,
            take_uint(in_force, "trusted state in_force", 0, len(chain) - 1),
            None
            if checkpoint is None
            else take_text(checkpoint, "trusted state checkpoint", 1, MAX_CHECKPOINT),
            None if smh is None else take_bytes(smh, "trusted state smh", 1, MAX_SMH),
        )
        if len(fields) == 6:
            # A state of version 1 begins at the first config, even if a later key was pinned.
            pinned = position_of_key(chain, trusted.key) or 0
            return replace(trusted, in_force=max(trusted.in_force, pinned))
        return trusted


def position_of_key(configs: Sequence[SignedConfig], key: PublicKey) -> int | None:
    """Return the position of the first config whose signer key is ``key``, None if there is none."""
    return next((at for at, signed in enumerate(configs) if signed.config.signer_key == key), None)


def claimed_size(checkpoint: str) -> int:
    """Step "checkpoint": the number of leaves that ``checkpoint`` names. Its signature is not verified."""
    try:
        return Checkpoint.parse(parse_note(checkpoint).text).size
    except MalformedError as error:
        raise VerificationError("checkpoint", str(error)) from None


def first_use(configs: Sequence[SignedConfig]) -> Pinned:
    """Return the pinned key of a client without a given one: the signer key of the first config."""
    if not configs:
        raise VerificationError("config", "the directory has none")
    return Pinned(configs[0].config.origin, configs[0].config.signer_key)


def begin(pinned: Pinned, configs: Sequence[SignedConfig]) -> Trusted:
    """Step "config": return the first state of a client, without a checkpoint. Its chain has the pinned key.

    Only the holder of the pinned key can have put it into the chain, and with it everything before it.
    """
    verify_chain(pinned.origin, configs)
    position = position_of_key(configs, pinned.key)
    if position is None:
        raise VerificationError("config", "the pinned key is the signer key of none of the configs")
    return Trusted(pinned.origin, pinned.key, tuple(configs), position, None)


def pin(trusted: Trusted, pinned: Pinned) -> Trusted:
    """Return ``trusted`` with the pinned key ``pinned``: older signer keys sign nothing new any more.

    A key that is older than the present pinned key changes nothing.
    """
    position = position_of_key(trusted.configs, pinned.key)
    if trusted.origin != pinned.origin or position is None:
        raise VerificationError(
            "config",
            f"the key {pinned.vkey} is none of those of {trusted.origin}, as it is trusted here; "
            "if the directory was set up anew, remove its trusted state",
        )
    if position <= (position_of_key(trusted.configs, trusted.key) or 0):
        return trusted
    return replace(trusted, key=pinned.key, in_force=max(trusted.in_force, position))


def extend(trusted: Trusted, configs: Sequence[SignedConfig]) -> Trusted:
    """Return ``trusted`` with a chain that continues its own. A shorter chain changes nothing.

    Raises ``EquivocationError``.
    """
    verify_chain(trusted.origin, configs)
    for number, (known, claimed) in enumerate(zip(trusted.configs, configs, strict=False)):
        if known.config_bytes != claimed.config_bytes:
            before = trusted.configs[:number]
            raise contradicting_configs(
                "config", trusted.origin, before, known, claimed
            ) or VerificationError("config", "the chain of configs is not the one that is trusted")
    if len(configs) <= len(trusted.configs):
        return trusted
    return replace(trusted, configs=tuple(configs))
