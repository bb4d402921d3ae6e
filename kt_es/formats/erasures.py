"""Erasures: signed statements that remove the profile and the opening of one entry. FORMATS, "Erasure".

An erasure is an item of the queue, and its verdict is recorded in the log of mutations. The entry stays in
the map, but its commitment can no longer be opened. A client reports "erased" only if the record of the
erasure proves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from kt_es.crypto.signatures import SIGNATURE_SIZE, PrivateKey, signed_message
from kt_es.formats.codec import decode_array, encode, take_bytes, take_uint
from kt_es.formats.entries import HASH_LENGTH, INDEX_LENGTH, PublicKey, take_public_key

MAX_ERASURE = 1024


class ErasureReason(IntEnum):
    """Why a profile was erased. A number, not text, because the log of mutations is public and permanent."""

    OWNER = 0  # the owner asked for it
    LAW = 1  # a court or an authority ordered it
    ABUSE = 2  # the profile broke the directory's rules
    MISTAKE = 3  # it should never have been published

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Erasure:
    """``[[index, entry hash, reason] as bytes, public key, signature]``.

    ``key`` is an authorized key of the current entry at ``index``, or the signer key of the directory. The
    erasure contains the key, so a reader can verify the signature with the record alone.
    """

    index: bytes
    entry_hash: bytes
    reason: ErasureReason
    erasure_bytes: bytes
    key: PublicKey
    signature: bytes

    def encode(self) -> bytes:
        return encode([self.erasure_bytes, self.key.fields(), self.signature])

    @classmethod
    def decode(cls, data: bytes) -> Erasure:
        """Decode an erasure without verifying its signature. Raises ``MalformedError``."""
        payload, key, signature = decode_array(data, "erasure", 3, most=MAX_ERASURE)
        payload = take_bytes(payload, "erasure payload", 1, MAX_ERASURE)
        index, entry_hash, reason = decode_array(payload, "erasure payload", 3)
        return cls(
            take_bytes(index, "erasure index", INDEX_LENGTH),
            take_bytes(entry_hash, "erasure entry hash", HASH_LENGTH),
            ErasureReason(take_uint(reason, "erasure reason", 0, max(ErasureReason))),
            payload,
            take_public_key(key, "erasure key"),
            take_bytes(signature, "erasure signature", SIGNATURE_SIZE),
        )

    @classmethod
    def sign(
        cls, index: bytes, entry_hash: bytes, reason: ErasureReason, origin: str, key: PrivateKey
    ) -> Erasure:
        """Sign the erasure of the entry ``entry_hash`` at ``index`` (32 bytes each) with ``key``."""
        payload = encode([index, entry_hash, int(reason)])
        signature = key.sign(signed_message("erasure", origin, payload))
        return cls(index, entry_hash, reason, payload, PublicKey(key.algorithm, key.public), signature)

    def is_signed(self, origin: str) -> bool:
        """Return whether ``key`` signed the erasure. Whether ``key`` may sign it is decided in ``epochs``."""
        return self.key.verifies(signed_message("erasure", origin, self.erasure_bytes), self.signature)
