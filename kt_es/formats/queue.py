"""The events of the queue: mutations, epoch advancement markers, configs and erasures.

An event is split into *items*. Each item gets one verdict and one record. FORMATS, "Queue events".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import SIGNATURE_SIZE, PrivateKey, signed_message
from kt_es.errors import MalformedError
from kt_es.formats.codec import MAX_TIME, Value, decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.entries import HASH_LENGTH, MAX_MUTATION
from kt_es.formats.keys import PublicKey

MUTATIONS = "Mutations"
EPOCH_MARKER = "EpochMarker"
CONFIG = "Config"
ERASURE = "Erasure"

MAX_EVENT_ITEMS = 256
MAX_EVENT = 256 * 1024
MAX_ITEM = MAX_MUTATION
NONCE_LENGTH = 16


class ItemKind(IntEnum):
    """The kind of an item, which follows from the type of its event.

    ``EVENT`` is a whole ``Mutations`` event that could not be split into mutations.
    """

    UNKNOWN = 0
    MUTATION = 1
    MARKER = 2
    CONFIG = 3
    EVENT = 4
    ERASURE = 5


@dataclass(frozen=True, slots=True)
class Digest:
    """The digest and length of an item. A record contains them instead of an item over 16 KiB."""

    sha256: bytes
    length: int

    def fields(self) -> Value:
        return [self.sha256, self.length]


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the queue, identified by the revision of its event and its position in the event."""

    revision: int
    position: int
    kind: ItemKind
    content: bytes | Digest


_KINDS = {EPOCH_MARKER: ItemKind.MARKER, CONFIG: ItemKind.CONFIG, ERASURE: ItemKind.ERASURE}


def items_of(revision: int, event_type: str, data: bytes) -> list[Item]:
    """Split a queue event into items. No content of the event raises an error."""
    if event_type != MUTATIONS:
        kind = _KINDS.get(event_type, ItemKind.UNKNOWN)
        return [Item(revision, 0, kind, content_of(data))]
    try:
        mutations = decode_mutations(data)
    except MalformedError:
        return [Item(revision, 0, ItemKind.EVENT, content_of(data))]
    return [
        Item(revision, position, ItemKind.MUTATION, content_of(mutation))
        for position, mutation in enumerate(mutations)
    ]


def content_of(data: bytes) -> bytes | Digest:
    """Return ``data`` if it has at most 16 KiB, otherwise its digest."""
    return data if len(data) <= MAX_ITEM else Digest(sha256(data), len(data))


def encode_mutations(mutations: Sequence[bytes]) -> bytes:
    return encode(list(mutations))


def decode_mutations(data: bytes) -> list[bytes]:
    """Return the encoded mutations of a ``Mutations`` event: 1 to 256 byte strings in at most 256 KiB.

    Raises:
        MalformedError: ``data`` is not such an event. The mutations are not decoded.
    """
    if len(data) > MAX_EVENT:
        raise MalformedError("mutations event", f"must have at most {MAX_EVENT} bytes, has {len(data)}")
    values = take_array(decode(data, "mutations event"), "mutations event", 1, MAX_EVENT_ITEMS)
    return [take_bytes(value, "mutations event item", 0, MAX_EVENT) for value in values]


@dataclass(frozen=True, slots=True)
class Marker:
    """An epoch advancement marker: ``[[nonce, issued_at in ms] as bytes, signature]``.

    A marker has no epoch number, so an additional marker in the queue only closes another epoch.
    """

    nonce: bytes
    issued_at: int
    marker_bytes: bytes
    signature: bytes

    def encode(self) -> bytes:
        return encode([self.marker_bytes, self.signature])

    @classmethod
    def decode(cls, data: bytes) -> Marker:
        marker_bytes, signature = take_array(decode(data, "marker"), "marker", 2)
        marker_bytes = take_bytes(marker_bytes, "marker payload", 1, MAX_ITEM)
        nonce, issued_at = take_array(decode(marker_bytes, "marker payload"), "marker payload", 2)
        return cls(
            take_bytes(nonce, "marker nonce", NONCE_LENGTH),
            take_uint(issued_at, "marker issued_at", 0, MAX_TIME),
            marker_bytes,
            take_bytes(signature, "marker signature", SIGNATURE_SIZE),
        )

    @classmethod
    def sign(cls, nonce: bytes, issued_at: int, origin: str, key: PrivateKey) -> Marker:
        payload = encode([nonce, issued_at])
        return cls(nonce, issued_at, payload, key.sign(signed_message("marker", origin, payload)))

    def is_signed_by(self, key: PublicKey, origin: str) -> bool:
        return key.verifies(signed_message("marker", origin, self.marker_bytes), self.signature)


def take_item_content(value: Value, what: str) -> bytes | Digest:
    """Return the item field of a record: bytes, or ``[SHA-256, length]`` for an item over 16 KiB."""
    if isinstance(value, bytes):
        return take_bytes(value, what, 0, MAX_ITEM)
    digest, length = take_array(value, what, 2)
    return Digest(
        take_bytes(digest, f"{what} digest", HASH_LENGTH), take_uint(length, f"{what} length", MAX_ITEM + 1)
    )
