"""Public keys and signatures as entries and configs encode them. FORMATS, "Keys"."""

from __future__ import annotations

from dataclasses import dataclass

from kt_es.crypto import signatures
from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import SIGNATURE_SIZE
from kt_es.formats.codec import Value, encode, take_array, take_bytes, take_uint

KEY_ID_LENGTH = 8
MAX_SIGNATURES = 32


@dataclass(frozen=True, slots=True)
class PublicKey:
    """``[algorithm, raw bytes]``."""

    algorithm: int
    raw: bytes

    @property
    def id(self) -> bytes:
        """The first 8 bytes of the SHA-256 of the encoding.

        The id is computed on each access, because a replay decodes more keys than it needs ids.
        """
        return sha256(encode([self.algorithm, self.raw]))[:KEY_ID_LENGTH]

    def fields(self) -> Value:
        return [self.algorithm, self.raw]

    @property
    def is_point(self) -> bool:
        """Whether a private key with this public key can exist.

        The rules of the log do not check this, because the check would slow every replay.
        """
        return signatures.is_point(self.algorithm, self.raw)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        return signatures.verify(self.algorithm, self.raw, message, signature)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature and the id of the key that is said to have made it."""

    key_id: bytes
    value: bytes

    def fields(self) -> Value:
        return [self.key_id, self.value]


def take_public_key(value: Value, what: str) -> PublicKey:
    algorithm, raw = take_array(value, what, 2)
    algorithm = take_uint(algorithm, f"{what} algorithm", signatures.ED25519, signatures.ECDSA_P256)
    return PublicKey(algorithm, take_bytes(raw, what, signatures.PUBLIC_KEY_SIZES[algorithm]))


def take_signatures(value: Value, what: str) -> tuple[Signature, ...]:
    taken = []
    for pair in take_array(value, what, 1, MAX_SIGNATURES):
        key_id, signature = take_array(pair, what, 2)
        taken.append(
            Signature(
                take_bytes(key_id, f"{what} key id", KEY_ID_LENGTH),
                take_bytes(signature, what, SIGNATURE_SIZE),
            )
        )
    return tuple(taken)


def sign(key: signatures.PrivateKey, kind: str, origin: str, payload: bytes) -> Signature:
    """Sign the message of this kind, origin and payload (``crypto.signatures.signed_message``)."""
    message = signatures.signed_message(kind, origin, payload)
    return Signature(PublicKey(key.algorithm, key.public).id, key.sign(message))
