"""Events of the queue, and the records of their items in the log of mutations. FORMATS, "Queue events".

An event is split into *items*. Each item gets one verdict and one record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import SIGNATURE_SIZE, PrivateKey, signed_message
from kt_es.errors import MalformedError
from kt_es.formats.codec import (
    MAX_TIME,
    Value,
    check_size,
    decode,
    decode_array,
    encode,
    take_array,
    take_bytes,
    take_uint,
)
from kt_es.formats.entries import HASH_LENGTH, MAX_MUTATION, PublicKey
from kt_es.formats.usual import usual_record
from kt_es.values import frequent_value

MUTATIONS = "Mutations"
EPOCH_MARKER = "EpochMarker"
CONFIG = "Config"
ERASURE = "Erasure"

RECORDS = "Records"

MAX_EVENT_ITEMS = 256
MAX_EVENT = 256 * 1024
MAX_ITEM = MAX_MUTATION
MAX_EVENT_RECORDS = 256
MAX_EVENT_BYTES = 256 * 1024
MAX_RECORD = 17 * 1024
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


@frequent_value
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
        return [Item(revision, 0, _KINDS.get(event_type, ItemKind.UNKNOWN), content_of(data))]
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

    Raises ``MalformedError``.
    """
    check_size(data, "mutations event", MAX_EVENT)
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
        marker_bytes, signature = decode_array(data, "marker", 2)
        marker_bytes = take_bytes(marker_bytes, "marker payload", 1, MAX_ITEM)
        nonce, issued_at = decode_array(marker_bytes, "marker payload", 2)
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


class Verdict(IntEnum):
    """The decision about an item. A value below 10 is a success (also a duplicate), any other a failure."""

    ACCEPTED = 0
    DUPLICATE = 1
    EPOCH = 2
    CONFIG = 3
    ERASED = 4
    REPLAY = 10
    STALE = 11
    UNAUTHORIZED = 12
    CONFLICT = 13
    MALFORMED = 20
    OVERSIZE = 21
    UNKNOWN = 22
    FOREIGN_MARKER = 23
    STALE_MARKER = 24
    FOREIGN_CONFIG = 25
    FOREIGN_ERASURE = 26

    @property
    def label(self) -> str:
        """The name of the verdict in messages and metrics, for instance ``foreign-marker``."""
        return self.name.lower().replace("_", "-")

    @property
    def succeeded(self) -> bool:
        return self < Verdict.REPLAY


@frequent_value
class Record:
    """``[sequence, queue revision, position, kind, verdict, item]``: a leaf of the log of mutations."""

    sequence: int
    item: Item
    verdict: Verdict

    @property
    def closes_epoch(self) -> bool:
        return self.verdict is Verdict.EPOCH

    def encode(self) -> bytes:
        item = self.item
        content = item.content.fields() if isinstance(item.content, Digest) else item.content
        return encode(
            [self.sequence, item.revision, item.position, int(item.kind), int(self.verdict), content]
        )

    @classmethod
    def decode(cls, data: bytes) -> Record:
        usual = usual_record(data) if len(data) <= MAX_ITEM else None
        if usual is None or usual[3] not in _KIND_OF or usual[4] not in _VERDICT_OF:
            return cls._decode(data)
        sequence, revision, position, kind, verdict, content = usual
        return cls(sequence, Item(revision, position, _KIND_OF[kind], content), _VERDICT_OF[verdict])

    @classmethod
    def _decode(cls, data: bytes) -> Record:
        fields = decode_array(data, "record", 6, most=MAX_RECORD)
        sequence, revision, position, kind, verdict, content = fields
        try:
            known_kind = ItemKind(take_uint(kind, "record kind"))
            known_verdict = Verdict(take_uint(verdict, "record verdict"))
        except ValueError as error:
            raise MalformedError("record", str(error)) from None
        item = Item(
            take_uint(revision, "record queue revision"),
            take_uint(position, "record position"),
            known_kind,
            _take_content(content),
        )
        return cls(take_uint(sequence, "record sequence"), item, known_verdict)


_KIND_OF: Final = {int(kind): kind for kind in ItemKind}  # a call for each record would cost a replay more
_VERDICT_OF: Final = {int(verdict): verdict for verdict in Verdict}


# After the header of the array: four numbers, and the verdict EPOCH.
_CLOSES_EPOCH: Final = re.compile(rb".(?:[\x00-\x17]|\x18.|\x19..|\x1a.{4}|\x1b.{8}){4}\x02", re.DOTALL)


def closes_epoch(record: bytes) -> bool:
    """Return what ``Record.closes_epoch`` is for an encoded record; for other bytes it means nothing."""
    return _CLOSES_EPOCH.match(record) is not None


def _take_content(value: Value) -> bytes | Digest:
    """Return the item field of a record: bytes, or ``[SHA-256, length]`` for an item over 16 KiB."""
    if isinstance(value, bytes):
        return take_bytes(value, "record item", 0, MAX_ITEM)
    digest, length = take_array(value, "record item", 2)
    sha = take_bytes(digest, "record item digest", HASH_LENGTH)
    return Digest(sha, take_uint(length, "record item length", MAX_ITEM + 1))


def encode_records(first_sequence: int, records: Sequence[bytes]) -> bytes:
    """Return the data of a ``Records`` event: ``[first sequence, [record bytes...]]``."""
    return encode([first_sequence, list(records)])


def decode_records(data: bytes) -> tuple[int, list[bytes]]:
    """Return the first sequence number of a ``Records`` event and the encoded records."""
    first, values = decode_array(data, "records event", 2)
    records = take_array(values, "records event", 1, MAX_EVENT_RECORDS)
    return (
        take_uint(first, "records event first sequence"),
        [take_bytes(record, "records event record", 1, MAX_RECORD) for record in records],
    )


class RecordPacker:
    """Groups records into ``Records`` events. The grouping depends only on the queue.

    An event is closed before its records exceed 256 KiB, when it has 256 records, and after the record of the
    marker that ends an epoch.
    """

    def __init__(self, next_sequence: int) -> None:
        self._first = next_sequence
        self._records: list[bytes] = []
        self._size = 0

    @property
    def first(self) -> int:
        """The number of the first record that is not in an event yet."""
        return self._first

    def add(self, record: bytes, *, closes_epoch: bool) -> Iterator[bytes]:
        """Add ``record`` and yield the data of the events that it closes: none, one or two."""
        if self._size + len(record) > MAX_EVENT_BYTES:
            yield self._close()
        self._records.append(record)
        self._size += len(record)
        if closes_epoch or len(self._records) == MAX_EVENT_RECORDS:
            yield self._close()

    def _close(self) -> bytes:
        data = encode_records(self._first, self._records)
        self._first += len(self._records)
        self._records = []
        self._size = 0
        return data
