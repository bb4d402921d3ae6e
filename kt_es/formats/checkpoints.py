"""C2SP checkpoints (https://c2sp.org/tlog-checkpoint): the signed heads of both logs.

A checkpoint is a note whose text has three lines: origin, number of leaves in decimal, base64 of the
RFC 6962 root. Extension lines are refused: monitors could not check what they say. The log of map heads
has the origin ``<origin>/heads``, the log of mutations ``<origin>/mutations``; the key name is the
log's origin in both::

    kt.example.org/people/heads
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — kt.example.org/people/heads <base64 of key hash and signature>
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kt_es.crypto.hashes import HASH_SIZE
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.notes import (
    decode_base64,
    encode_base64,
    sign_note,
    verifier_key,
    verify_note,
)

MAX_LOG_SIZE: Final = 2**63 - 1
"""Leaves a log may have: what other implementations can read."""

_STEP: Final = "checkpoint"
# Nothing that int() would read besides: no sign, underscore, space, leading zero or other digits.
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f]")


def heads_origin(origin: str) -> str:
    """The origin of a directory's log of map heads."""
    return f"{origin}/heads"


def mutations_origin(origin: str) -> str:
    """The origin of a directory's log of mutations."""
    return f"{origin}/mutations"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log of ``size`` leaves with the 32-byte ``root``. ``origin`` is the log's, not the directory's."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or _CONTROL.search(self.origin):
            raise MalformedError(_STEP, "the origin is empty or contains control characters")
        if not 0 <= self.size <= MAX_LOG_SIZE:
            raise MalformedError(_STEP, f"the size is not between 0 and {MAX_LOG_SIZE}")
        if len(self.root) != HASH_SIZE:
            raise MalformedError(_STEP, f"the root has {len(self.root)} bytes instead of {HASH_SIZE}")

    def encode(self) -> str:
        """The text of the note."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The checkpoint whose note text is ``text``. Raises ``MalformedError``."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise MalformedError(_STEP, "has not three lines: origin, size, root")
        origin, size, root, _ = lines
        if not _DECIMAL.fullmatch(size):
            raise MalformedError(_STEP, "the size is not a decimal number")
        checkpoint = cls(origin, int(size), decode_base64(root, _STEP))
        if checkpoint.encode() != text:
            raise MalformedError(_STEP, "is not in its one encoding")
        return checkpoint


def sign_checkpoint(checkpoint: Checkpoint, key_name: str, key: PrivateKey) -> str:
    """The checkpoint as a note signed by an Ed25519 ``key``; ``key_name`` is the log's origin.

    Raises ``MalformedError`` for a key name with spaces or a plus sign and for other keys.
    """
    return sign_note(checkpoint.encode(), key_name, key)


def open_checkpoint(encoded: str | bytes, origin: str, public_keys: Iterable[bytes]) -> Checkpoint:
    """The checkpoint of the log ``origin``, signed under that name by one of ``public_keys``.

    ``public_keys`` are raw Ed25519 keys of 32 bytes. Signatures by others, such as cosignatures of
    witnesses, are not looked at. Raises ``MalformedError``, or ``VerificationError`` of step
    ``checkpoint`` if no key of these signed it or it is another log's.
    """
    keys = [verifier_key(origin, public_key) for public_key in public_keys]
    note = verify_note(encoded, keys, step=_STEP)
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != origin:
        raise VerificationError(_STEP, f"is of the log {checkpoint.origin}, not of {origin}")
    return checkpoint
