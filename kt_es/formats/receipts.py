"""The receipt file: a submission as its owner keeps it, to ask what became of it. FORMATS, "Receipt file".

The file has the profile and the opening too, so that the same bytes can be submitted again. It is private.
"""

from __future__ import annotations

from dataclasses import dataclass

from kt_es.errors import MalformedError
from kt_es.formats.codec import decode_array, encode, take_bytes, take_text
from kt_es.formats.configs import check_origin
from kt_es.formats.entries import MAX_MUTATION, MAX_PROFILE, OPENING_LENGTH, Mutation
from kt_es.formats.labels import MAX_LABEL

RECEIPT_FILE = "kt-es receipt v1"
MAX_RECEIPT_FILE = 1024 * 1024
_WHAT = "receipt file"


@dataclass(frozen=True, slots=True)
class ReceiptFile:
    """``["kt-es receipt v1", origin, label, mutation, opening, profile]``. ``label`` is normalized."""

    origin: str
    label: str
    mutation: Mutation
    opening: bytes
    profile: bytes

    def encode(self) -> bytes:
        held = [self.mutation.encode(), self.opening, self.profile]
        return encode([RECEIPT_FILE, self.origin, self.label, *held])

    @classmethod
    def decode(cls, data: bytes) -> ReceiptFile:
        kind, origin, label, mutation, opening, profile = decode_array(data, _WHAT, 6, most=MAX_RECEIPT_FILE)
        if kind != RECEIPT_FILE:
            raise MalformedError(_WHAT, f"must begin with {RECEIPT_FILE!r}")
        return cls(
            check_origin(take_text(origin, f"{_WHAT} origin", 1, 255)),
            take_text(label, f"{_WHAT} label", 1, MAX_LABEL),
            Mutation.decode(take_bytes(mutation, f"{_WHAT} mutation", 1, MAX_MUTATION)),
            take_bytes(opening, f"{_WHAT} opening", OPENING_LENGTH),
            take_bytes(profile, f"{_WHAT} profile", 0, MAX_PROFILE),
        )
