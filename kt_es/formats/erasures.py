"""Erasures: that the profile and the opening of one entry are gone for good. FORMATS, "Erasure".

An erasure is an item of the queue, and its verdict stands in the log of mutations. The entry stays in the
map; its commitment then opens to nothing. Only the record of an erasure lets a client say "erased".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from kt_es.crypto.signatures import SIGNATURE_SIZE, PrivateKey, signed_message
from kt_es.errors import MalformedError
from kt_es.formats.codec import decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.entries import HASH_LENGTH, INDEX_LENGTH
from kt_es.formats.keys import PublicKey, take_public_key

MAX_ERASURE = 1024


class ErasureReason(IntEnum):
    """Why a profile was erased. A number and no text: the log of mutations is public and kept for ever."""

    OWNER = 0  # the owner asked for it
    LAW = 1  # a court or an authority did
    ABUSE = 2  # the profile broke the directory's rules
    MISTAKE = 3  # it should never have been published

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Erasure:
    """``[[index, entry hash, reason] as bytes, public key, signature]``.

    ``key`` is a key of the entry that stands at ``index``, or the directory's signer key. It travels with
    the erasure, so that whoever reads the record alone can verify the signature.
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
        """Raises ``MalformedError``. The signature is not verified here."""
        if len(data) > MAX_ERASURE:
            raise MalformedError("erasure", f"must have at most {MAX_ERASURE} bytes, has {len(data)}")
        payload, key, signature = take_array(decode(data, "erasure"), "erasure", 3)
        payload = take_bytes(payload, "erasure payload", 1, MAX_ERASURE)
        index, entry_hash, reason = take_array(decode(payload, "erasure payload"), "erasure payload", 3)
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
        """The erasure of the entry ``entry_hash`` at ``index`` (32 bytes each), signed by ``key``."""
        payload = encode([index, entry_hash, int(reason)])
        signature = key.sign(signed_message("erasure", origin, payload))
        return cls(index, entry_hash, reason, payload, PublicKey(key.algorithm, key.public), signature)

    def is_signed(self, origin: str) -> bool:
        """Whether ``key`` signed it for the directory ``origin``. Who may sign is the decision's matter."""
        return self.key.verifies(signed_message("erasure", origin, self.erasure_bytes), self.signature)
