"""Map heads, the checkpoints of both logs, and the events that publish them. FORMATS, "Map head".

A checkpoint is a note whose text has three lines: origin, number of leaves in decimal, base64 of the
RFC 6962 root. Extension lines are refused, because monitors cannot check their content. The log of map heads
has the origin ``<origin>/heads``, and the log of mutations has ``<origin>/mutations``. The key name of a
signature is the origin of the log::

    kt.example.org/people/heads
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — kt.example.org/people/heads <base64 of key hash and signature>
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from kt_es.crypto.hashes import HASH_SIZE
from kt_es.crypto.signatures import SIGNATURE_SIZE, PrivateKey, signed_message
from kt_es.errors import MalformedError, UnverifiedRowError, VerificationError
from kt_es.formats.codec import MAX_TIME, decode_array, encode, take_bytes, take_text, take_uint
from kt_es.formats.entries import HASH_LENGTH, PublicKey
from kt_es.formats.notes import (
    MAX_NOTE_SIZE,
    decode_base64,
    encode_base64,
    sign_note,
    verifier_key,
    verify_note,
)

MAP_HEAD = "MapHead"
MAX_SMH = 1024
MAX_CHECKPOINT = MAX_NOTE_SIZE
MAX_HEAD_EVENT = MAX_SMH + 2 * MAX_CHECKPOINT + 16

MAX_LOG_SIZE: Final = 2**63 - 1
"""The largest number of leaves that a log may have. Other implementations cannot read larger numbers."""

LogName = Literal["heads", "mutations"]
LOG_NAMES: Final[tuple[LogName, LogName]] = ("heads", "mutations")
"""The two logs of a directory, as paths and messages name them."""

_STEP: Final = "checkpoint"
# int() also accepts signs, underscores, spaces, leading zeros and non-ASCII digits. The pattern refuses them.
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f]")


def heads_origin(origin: str) -> str:
    """Return the origin of a directory's log of map heads."""
    return f"{origin}/heads"


def mutations_origin(origin: str) -> str:
    """Return the origin of a directory's log of mutations."""
    return f"{origin}/mutations"


def log_origins(origin: str) -> dict[LogName, str]:
    """Return the origin of each log of a directory."""
    return {"heads": heads_origin(origin), "mutations": mutations_origin(origin)}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log: ``size`` leaves and the 32-byte ``root``.

    ``origin`` is the origin of the log, not of the directory.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or _CONTROL.search(self.origin):
            raise MalformedError(_STEP, "the origin is empty or contains control characters")
        if not 0 <= self.size <= MAX_LOG_SIZE:
            raise MalformedError(_STEP, f"the size must be in 0 to {MAX_LOG_SIZE}, is {self.size}")
        if len(self.root) != HASH_SIZE:
            raise MalformedError(_STEP, f"the root has {len(self.root)} bytes instead of {HASH_SIZE}")

    def encode(self) -> str:
        """Return the text of the note."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Parse the text of a note. Raises ``MalformedError``."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise MalformedError(_STEP, f"must have three lines (origin, size, root), has {len(lines) - 1}")
        origin, size, root, _ = lines
        if not _DECIMAL.fullmatch(size):
            raise MalformedError(_STEP, "the size is not a decimal number")
        checkpoint = cls(origin, int(size), decode_base64(root, _STEP))
        if checkpoint.encode() != text:
            raise MalformedError(_STEP, "is not in its one encoding")
        return checkpoint


def sign_checkpoint(checkpoint: Checkpoint, key_name: str, key: PrivateKey) -> str:
    """Return the checkpoint as a note that ``key``, an Ed25519 key, has signed as ``key_name``.

    Raises ``MalformedError``.
    """
    return sign_note(checkpoint.encode(), key_name, key)


def open_checkpoint(encoded: str | bytes, origin: str, public_keys: Iterable[bytes]) -> Checkpoint:
    """Verify a checkpoint of the log ``origin`` and return it.

    ``origin`` is also the key name of the signature. One of ``public_keys``, raw Ed25519 keys, must have
    signed the checkpoint. Signatures by other keys, such as the cosignatures of witnesses, are ignored.

    Raises:
        MalformedError: ``encoded`` is not a note, or its text is not a checkpoint.
        VerificationError: Step "checkpoint"; none of the keys signed the checkpoint, the signature of one of
            them is invalid, or the checkpoint is of another log.
    """
    keys = [verifier_key(origin, public_key) for public_key in public_keys]
    note = verify_note(encoded, keys, step=_STEP)
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != origin:
        raise VerificationError(_STEP, f"is of the log {checkpoint.origin}, not of {origin}")
    return checkpoint


@dataclass(frozen=True, slots=True)
class MapHead:
    """The state of the map and of the log of mutations at the end of an epoch.

    ``map_size`` is the number of entries in the map. ``timestamp`` is the time of the marker that closed the
    epoch, in ms. ``queue_next`` is the revision of this marker in the queue, plus one. ``config_hash`` names
    the config in force.
    """

    origin: str
    epoch: int
    map_root: bytes
    map_size: int
    log_size: int
    log_root: bytes
    queue_next: int
    timestamp: int
    config_hash: bytes

    def encode(self) -> bytes:
        return encode(
            [
                *(self.origin, self.epoch, self.map_root, self.map_size, self.log_size, self.log_root),
                *(self.queue_next, self.timestamp, self.config_hash),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> MapHead:
        fields = decode_array(data, "map head", 9)
        origin, epoch, map_root, map_size, log_size, log_root, queue_next, timestamp, config = fields
        return cls(
            take_text(origin, "map head origin", 1, 255),
            take_uint(epoch, "map head epoch", 1),
            take_bytes(map_root, "map head map_root", HASH_LENGTH),
            take_uint(map_size, "map head map_size"),
            take_uint(log_size, "map head log_size", 1),
            take_bytes(log_root, "map head log_root", HASH_LENGTH),
            take_uint(queue_next, "map head queue_next", 1),
            take_uint(timestamp, "map head timestamp", 0, MAX_TIME),
            take_bytes(config, "map head config hash", HASH_LENGTH),
        )


@dataclass(frozen=True, slots=True)
class SignedMapHead:
    """``[map head bytes, signature]``, the SMH. The encoding of an SMH is a leaf of the log of map heads."""

    head: MapHead
    head_bytes: bytes
    signature: bytes

    def encode(self) -> bytes:
        return encode([self.head_bytes, self.signature])

    @classmethod
    def decode(cls, data: bytes) -> SignedMapHead:
        head_bytes, signature = decode_array(data, "signed map head", 2)
        head_bytes = take_bytes(head_bytes, "signed map head payload", 1, MAX_SMH)
        return cls(
            MapHead.decode(head_bytes),
            head_bytes,
            take_bytes(signature, "signed map head signature", SIGNATURE_SIZE),
        )

    @classmethod
    def sign(cls, head: MapHead, key: PrivateKey) -> SignedMapHead:
        data = head.encode()
        return cls(head, data, key.sign(signed_message("map-head", head.origin, data)))

    def verify(self, origin: str, key: PublicKey) -> MapHead:
        """Return the head if it is for ``origin`` and signed by ``key``."""
        if self.head.origin != origin:
            raise VerificationError("map head", f"is for {self.head.origin}, not for {origin}")
        if not key.verifies(signed_message("map-head", origin, self.head_bytes), self.signature):
            raise VerificationError("map head", "is not signed by the directory's key")
        return self.head


@dataclass(frozen=True, slots=True)
class HeadEvent:
    """``[SMH bytes, checkpoint of the log of heads, checkpoint of the log of mutations]``.

    Whoever replays from tiles stores heads between the checkpoints that were served: they have an empty text
    instead of a checkpoint. No published event has that.
    """

    smh_bytes: bytes
    heads_checkpoint: str
    mutations_checkpoint: str

    def encode(self) -> bytes:
        return encode([self.smh_bytes, self.heads_checkpoint, self.mutations_checkpoint])

    def is_part_of(self, published: HeadEvent) -> bool:
        """Return whether this stored event is ``published``, perhaps without checkpoints."""
        return (
            self.smh_bytes == published.smh_bytes
            and self.heads_checkpoint in ("", published.heads_checkpoint)
            and self.mutations_checkpoint in ("", published.mutations_checkpoint)
        )

    def whole(self) -> HeadEvent:
        """Return this stored event if it has both checkpoints; otherwise raise ``UnverifiedRowError``."""
        if not self.heads_checkpoint or not self.mutations_checkpoint:
            raise UnverifiedRowError(
                "the data directory was filled from tiles and lacks checkpoints: it is for monitors and "
                "audits; name another one"
            )
        return self

    @classmethod
    def decode(cls, data: bytes, *, stored: bool = False) -> HeadEvent:
        """Decode an event; one that is ``stored`` may lack checkpoints."""
        smh, heads, mutations = decode_array(data, "head event", 3)
        least = 0 if stored else 1
        return cls(
            take_bytes(smh, "head event smh", 1, MAX_SMH),
            take_text(heads, "head event heads checkpoint", least, MAX_CHECKPOINT),
            take_text(mutations, "head event mutations checkpoint", least, MAX_CHECKPOINT),
        )
