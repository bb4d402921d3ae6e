"""Records of the log of mutations: one for each item of the queue, with its verdict. FORMATS, "Record"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from kt_es.errors import MalformedError
from kt_es.formats.codec import decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.queue import Digest, Item, ItemKind, take_item_content

RECORDS = "Records"
MAX_EVENT_RECORDS = 256
MAX_EVENT_BYTES = 256 * 1024
MAX_RECORD = 17 * 1024


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


@dataclass(frozen=True, slots=True)
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
        if len(data) > MAX_RECORD:
            raise MalformedError("record", f"must have at most {MAX_RECORD} bytes, has {len(data)}")
        sequence, revision, position, kind, verdict, content = take_array(decode(data, "record"), "record", 6)
        try:
            known_kind = ItemKind(take_uint(kind, "record kind"))
            known_verdict = Verdict(take_uint(verdict, "record verdict"))
        except ValueError as error:
            raise MalformedError("record", str(error)) from None
        item = Item(
            take_uint(revision, "record queue revision"),
            take_uint(position, "record position"),
            known_kind,
            take_item_content(content, "record item"),
        )
        return cls(take_uint(sequence, "record sequence"), item, known_verdict)


def encode_records(first_sequence: int, records: Sequence[bytes]) -> bytes:
    """Return the data of a ``Records`` event: ``[first sequence, [record bytes...]]``."""
    return encode([first_sequence, list(records)])


def decode_records(data: bytes) -> tuple[int, list[bytes]]:
    """Return the first sequence number of a ``Records`` event and the encoded records."""
    first, values = take_array(decode(data, "records event"), "records event", 2)
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
