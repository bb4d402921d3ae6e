"""The disk under the log: a key-value store with a promise of durability, and the layout of its keys.

Integers are big-endian, so that their order is the order of iteration::

    H name                     head of a stream                        (streams.StreamHead)
    E number u64, revision u64 event                                   (records)
    P last position u64        one append: number, first revision, first position, all u64
    I number u64, event id 16  revision u64 of the event with this id
    G stream u16 len, name, group   settings of a persistent subscription, JSON (groups.settings)
    C stream u16 len, name, group   its checkpoint, u64                         (groups.settings)
    M name                     counters of the node, u64

``NodeStorage`` is the seam. ``rocks.RocksStorage`` implements it over RocksDB; tests put a faulty one in its
place. Its promise:

- ``write`` applies a batch entirely or not at all and makes it visible to ``get``, ``get_many``, ``scan``.
- A batch need not be on disk before ``sync`` has returned.
- ``write`` and ``sync`` may raise ``StorageError``. Nothing may be concluded about the batch then: it may or
  may not be there after the next start.
- ``write`` alone may raise ``NoSpaceError``: the disk is full, and the batch is not there and never will be.
  Reads go on, and every further write is refused until ``recover`` has returned.
- A read that finds damage raises ``StorageError``: a part is never served as if it were the whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Protocol

from kt_es.errors import KtError

_EVENT = struct.Struct(">cQQ")
_RANGE_KEY = struct.Struct(">cQ")
_RANGE = struct.Struct(">QQQ")
_ID = struct.Struct(">cQ16s")
_U64 = struct.Struct(">Q")
HEADS, EVENTS, RANGES, IDS = b"H", b"E", b"P", b"I"
POSITION_KEY = b"Mposition"  # the last position, which every write of events moves
STREAMS_KEY = b"Mstreams"  # how many streams ever had an event
LAST_POSITION = 2**64 - 1  # higher than any


def after(family: bytes) -> bytes:
    """Return the key behind all keys of ``family``, a letter."""
    return bytes((family[0] + 1,))


def head_key(name: str) -> bytes:
    return HEADS + name.encode()


def head_name(key: bytes) -> str:
    return key[1:].decode()


def event_key(number: int, revision: int) -> bytes:
    return _EVENT.pack(EVENTS, number, revision)


def decode_event_key(key: bytes) -> tuple[int, int]:
    """Return the stream number and revision."""
    _, number, revision = _EVENT.unpack(key)
    return number, revision


def id_key(number: int, event_id: str) -> bytes:
    """Return the key of the revision of an event, by the event's id."""
    return _ID.pack(IDS, number, bytes.fromhex(event_id.replace("-", "")))


def decode_id_key(key: bytes) -> tuple[int, str]:
    """Return the stream number and event id, 32 hexadecimal digits."""
    _, number, raw = _ID.unpack(key)
    return number, raw.hex()


def range_key(position: int) -> bytes:
    """Return the key of the append that ends at ``position``.

    The append that covers a position has the first key at or after the key of the position.
    """
    return _RANGE_KEY.pack(RANGES, position)


def encode_range(number: int, revision: int, first: int) -> bytes:
    """Return the value of an append: stream number, first revision, first position."""
    return _RANGE.pack(number, revision, first)


def decode_range(key: bytes, value: bytes) -> tuple[int, int, int, int]:
    """Return (first position, last position, stream number, first revision) of an append."""
    _, last = _RANGE_KEY.unpack(key)
    number, revision, first = _RANGE.unpack(value)
    return first, last, number, revision


def u64(value: int) -> bytes:
    """Return eight bytes, big-endian."""
    return _U64.pack(value)


def from_u64(value: bytes) -> int:
    number: int = _U64.unpack(value)[0]
    return number


class StorageError(KtError):
    """The disk refused a read or a write; the node has to stop."""


class NoSpaceError(StorageError):
    """The disk is full or a quota is used up: nothing was written, and nothing is in doubt.

    Clients get its text. The log of the node names the disk.
    """

    exit_code = 7

    def __init__(self) -> None:
        super().__init__("the disk is full: nothing can be written; try again later")


class DamageError(KtError):
    """The data are not what the node wrote."""

    exit_code = 4


class NodeStorage(Protocol):
    """A key-value store on disk. The text of this module has its promises."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value under ``key``."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values under ``keys``, in their order."""

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield pairs with ``start <= key < end``, ascending."""

    def scan_back(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield pairs from the first key at or after ``start`` downwards, while ``key >= end``."""

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        """Apply all changes or none."""

    def sync(self) -> None:
        """Return once everything written before is on disk. Called on the thread that ``commits`` chose."""

    def may_recover(self) -> bool:
        """Return whether the disk seems to have space again after a ``NoSpaceError``.

        Any thread may call this. It may take long.

        Raises ``StorageError`` if the disk has another fault.
        """

    def recover(self) -> None:
        """Accept writes again. The thread that reads and writes must call this.

        Raises:
            NoSpaceError: There is still no space; everything is as it was.
            StorageError: The data are not what was acknowledged.
        """

    def close(self) -> None:
        """Release the directory."""
