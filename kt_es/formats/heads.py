"""Map heads, signed map heads and the events that publish them. FORMATS, "Map head"."""

from __future__ import annotations

from dataclasses import dataclass

from kt_es.crypto.signatures import SIGNATURE_SIZE, PrivateKey, signed_message
from kt_es.errors import VerificationError
from kt_es.formats.codec import MAX_TIME, decode, encode, take_array, take_bytes, take_text, take_uint
from kt_es.formats.entries import HASH_LENGTH
from kt_es.formats.keys import PublicKey
from kt_es.formats.notes import MAX_NOTE_SIZE

MAP_HEAD = "MapHead"
MAX_SMH = 1024
MAX_CHECKPOINT = MAX_NOTE_SIZE
MAX_HEAD_EVENT = MAX_SMH + 2 * MAX_CHECKPOINT + 16


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
                self.origin,
                self.epoch,
                self.map_root,
                self.map_size,
                self.log_size,
                self.log_root,
                self.queue_next,
                self.timestamp,
                self.config_hash,
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> MapHead:
        origin, epoch, map_root, map_size, log_size, log_root, queue_next, timestamp, config = take_array(
            decode(data, "map head"), "map head", 9
        )
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
        head_bytes, signature = take_array(decode(data, "signed map head"), "signed map head", 2)
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
        """Return the head if it is for ``origin`` and signed by ``key``.

        Raises:
            VerificationError: step "map head"; the head is for another origin or not signed by ``key``.
        """
        if self.head.origin != origin:
            raise VerificationError("map head", f"is for {self.head.origin}, not for {origin}")
        if not key.verifies(signed_message("map-head", origin, self.head_bytes), self.signature):
            raise VerificationError("map head", "is not signed by the directory's key")
        return self.head


@dataclass(frozen=True, slots=True)
class HeadEvent:
    """``[SMH bytes, checkpoint of the log of heads, checkpoint of the log of mutations]``."""

    smh_bytes: bytes
    heads_checkpoint: str
    mutations_checkpoint: str

    def encode(self) -> bytes:
        return encode([self.smh_bytes, self.heads_checkpoint, self.mutations_checkpoint])

    @classmethod
    def decode(cls, data: bytes) -> HeadEvent:
        smh, heads, mutations = take_array(decode(data, "head event"), "head event", 3)
        return cls(
            take_bytes(smh, "head event smh", 1, MAX_SMH),
            take_text(heads, "head event heads checkpoint", 1, MAX_CHECKPOINT),
            take_text(mutations, "head event mutations checkpoint", 1, MAX_CHECKPOINT),
        )
