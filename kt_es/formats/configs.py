"""The signed configuration of a directory, which is the first item of its queue. FORMATS, "Config".

Each config names the one before it in ``previous``. Without this chain, somebody could put an old config with
valid signatures into the queue again and so roll the directory back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import ED25519, PrivateKey, is_point, signed_message
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.codec import (
    MAX_INTERVAL,
    decode_array,
    encode,
    take_array,
    take_bytes,
    take_text,
    take_uint,
)
from kt_es.formats.entries import (
    HASH_LENGTH,
    PublicKey,
    Signature,
    check_usable,
    sign,
    take_public_key,
    take_signatures,
)
from kt_es.formats.labels import LABEL_POLICIES

SUITE = "KTES_1"
MAX_SIGNER_KEYS = 8
MAX_CONFIG = 16 * 1024
VRF_KEY_LENGTH = 32

_ORIGIN = re.compile(r"[a-z0-9][a-z0-9.\-]*(:[0-9]{1,5})?(/[A-Za-z0-9._~\-]+)*")
_DIRECTORY = re.compile(r"[a-z0-9][a-z0-9_.]{0,62}")


def check_origin(origin: str) -> str:
    """Return ``origin`` if it is a URL without a scheme, such as ``kt.example.org/people``.

    Raises ``MalformedError``.
    """
    if len(origin) > 255 or not _ORIGIN.fullmatch(origin):
        raise MalformedError("origin", "must be a URL without a scheme, such as kt.example.org/people")
    return origin


def check_directory(name: str) -> str:
    """Return ``name`` if it can be the name of a directory. The names of its streams contain it.

    Raises ``MalformedError``.
    """
    if not _DIRECTORY.fullmatch(name):
        raise MalformedError("directory", "must match [a-z0-9][a-z0-9_.]{0,62}")
    return name


@dataclass(frozen=True, slots=True)
class Config:
    """The parameters of a directory that all its readers must share. Intervals are in milliseconds.

    The first of ``signer_keys`` signs markers, heads and checkpoints. The others are announced successors.
    ``max_merge_delay`` limits the time from the receipt of a mutation to the head of the epoch that decides
    about it.
    """

    origin: str
    signer_keys: tuple[PublicKey, ...]
    vrf_key: bytes
    label_policy: str
    min_interval: int
    max_interval: int
    max_merge_delay: int
    previous: bytes | None

    @property
    def signer_key(self) -> PublicKey:
        return self.signer_keys[0]

    @property
    def hash(self) -> bytes:
        return sha256(self.encode())

    def encode(self) -> bytes:
        keys = [key.fields() for key in self.signer_keys]
        intervals = [self.min_interval, self.max_interval, self.max_merge_delay]
        return encode([self.origin, SUITE, keys, self.vrf_key, self.label_policy, *intervals, self.previous])

    @classmethod
    def decode(cls, data: bytes) -> Config:
        origin, suite, keys, vrf, policy, low, high, delay, previous = decode_array(data, "config", 9)
        if suite != SUITE:
            raise MalformedError("config suite", f"must be {SUITE}")
        if policy not in LABEL_POLICIES:
            raise MalformedError("config label_policy", f"must be one of {', '.join(LABEL_POLICIES)}")
        signer_keys = tuple(
            take_public_key(key, "config signer key")
            for key in take_array(keys, "config signer_keys", 1, MAX_SIGNER_KEYS)
        )
        _check_signer_keys(signer_keys)
        vrf = take_bytes(vrf, "config vrf_key", VRF_KEY_LENGTH)
        if not is_point(ED25519, vrf):
            raise MalformedError("config vrf_key", f"{vrf.hex()} is not a point of the group of prime order")
        max_interval = take_uint(high, "config max_interval", 1, MAX_INTERVAL)
        return cls(
            check_origin(take_text(origin, "config origin", 1, 255)),
            signer_keys,
            vrf,
            take_text(policy, "config label_policy", 1, 64),
            take_uint(low, "config min_interval", 0, max_interval),
            max_interval,
            take_uint(delay, "config max_merge_delay", 1, MAX_INTERVAL),
            None if previous is None else take_bytes(previous, "config previous", HASH_LENGTH),
        )


def _check_signer_keys(keys: Sequence[PublicKey]) -> None:
    """Check all signer keys. An announced key that cannot sign would end the directory when it is needed."""
    what = "config signer key"
    for key in keys:
        if key.algorithm != ED25519:
            raise MalformedError(what, f"{key.id.hex()} must be an Ed25519 key")
    check_usable(keys, what)


@dataclass(frozen=True, slots=True)
class SignedConfig:
    """``[config bytes, signatures]``.

    A config is signed by its own signer key. A change is also signed by the signer key in force.
    """

    config: Config
    config_bytes: bytes
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        return encode([self.config_bytes, [signature.fields() for signature in self.signatures]])

    @classmethod
    def decode(cls, data: bytes) -> SignedConfig:
        config_bytes, signatures = decode_array(data, "signed config", 2, most=MAX_CONFIG)
        config_bytes = take_bytes(config_bytes, "signed config payload", 1, MAX_CONFIG)
        taken = take_signatures(signatures, "signed config signature")
        if len({signature.key_id for signature in taken}) != len(taken):
            raise MalformedError("signed config signature", "occurs twice for one key id")
        return cls(Config.decode(config_bytes), config_bytes, taken)

    @classmethod
    def sign(cls, config: Config, keys: Sequence[PrivateKey]) -> SignedConfig:
        """Sign ``config`` with each of ``keys``. A config that readers refuse would end the directory.

        Raises ``MalformedError``.
        """
        data = config.encode()
        return cls(Config.decode(data), data, tuple(sign(key, "config", config.origin, data) for key in keys))

    def is_signed_by(self, key: PublicKey) -> bool:
        message = signed_message("config", self.config.origin, self.config_bytes)
        return any(
            signature.key_id == key.id and key.verifies(message, signature.value)
            for signature in self.signatures
        )


def check_first_config(signed: SignedConfig, origin: str, key: PublicKey) -> Config:
    """Return the config of ``signed`` if it begins the directory ``origin`` with the pinned ``key``.

    Raises ``VerificationError``.
    """
    config = signed.config
    if config.origin != origin:
        raise VerificationError("config", f"is for {config.origin}, not for {origin}")
    if config.previous is not None:
        raise VerificationError("config", "is a change of another one, not the first of a directory")
    if config.signer_key != key or not signed.is_signed_by(key):
        raise VerificationError("config", "is not signed by the directory's key")
    return config


def check_config_change(signed: SignedConfig, current: Config) -> Config:
    """Return the config of ``signed`` if it may follow ``current``.

    The config must name ``current`` as its predecessor and be signed by the signer keys of both. Origin, VRF
    key and label policy cannot change: another VRF key would move every label to another index.
    Raises ``VerificationError``.
    """
    config = signed.config
    if config.previous != current.hash:
        raise VerificationError("config", "does not name the config in force as its predecessor")
    if config.origin != current.origin or config.vrf_key != current.vrf_key:
        raise VerificationError("config", "may not change the origin or the VRF key")
    if config.label_policy != current.label_policy:
        raise VerificationError("config", "may not change the label policy")
    if not signed.is_signed_by(current.signer_key):
        raise VerificationError("config", "is not signed by the signer key in force")
    if not signed.is_signed_by(config.signer_key):
        raise VerificationError("config", "is not signed by its own signer key")
    return config


def verify_chain(origin: str, configs: Sequence[SignedConfig]) -> tuple[Config, ...]:
    """Verify a chain of configs that begins the directory ``origin``, and return its configs in order.

    The first config must be signed by its own signer key, and each change by the key in force and by its own
    signer key. This function cannot know whether the chain is of the right directory: the caller compares the
    signer keys with a key that it trusts.
    """
    if not configs:
        raise VerificationError("config", "the chain of configs is empty")
    chain = [check_first_config(configs[0], origin, configs[0].config.signer_key)]
    for signed in configs[1:]:
        chain.append(check_config_change(signed, chain[-1]))
    return tuple(chain)
