"""Snapshot files: a committed state with all current entries, in a portable form. FORMATS, "Snapshot".

::

    file   = chunk(header) chunk(entries)* u32 0 || SHA-256 of everything before it
    chunk  = u32 length, big-endian || that many bytes

A reader must verify the digest, the root and the signature of the head before it uses the content of a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.errors import MalformedError
from kt_es.formats.codec import decode, decode_array, encode, take_array, take_bytes, take_text, take_uint
from kt_es.formats.configs import MAX_CONFIG
from kt_es.formats.entries import INDEX_LENGTH, MAX_MUTATION
from kt_es.formats.heads import MAX_HEAD_EVENT

KIND = "kt-es snapshot v1"
LENGTH_SIZE = 4
MAX_COMMITTED = 64 * 1024
MAX_CONFIGS = 1024
MAX_ROWS = 256
MAX_CHUNK = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """``[kind, committed state, head event, [signed config...]]``.

    The state, the event and each config are byte strings. Configs are in order, the oldest first.
    """

    committed: bytes
    head_event: bytes
    configs: tuple[bytes, ...]

    def encode(self) -> bytes:
        return encode([KIND, self.committed, self.head_event, self.configs])

    @classmethod
    def decode(cls, data: bytes) -> SnapshotHeader:
        what = "snapshot header"
        kind, committed, head_event, configs = decode_array(data, what, 4)
        if take_text(kind, f"{what} kind", 1, 64) != KIND:
            raise MalformedError(what, f"must begin with {KIND!r}")
        return cls(
            take_bytes(committed, f"{what} committed state", 1, MAX_COMMITTED),
            take_bytes(head_event, f"{what} head event", 1, MAX_HEAD_EVENT),
            tuple(
                take_bytes(config, f"{what} config", 1, MAX_CONFIG)
                for config in take_array(configs, f"{what} configs", 1, MAX_CONFIGS)
            ),
        )


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """A current entry: its index, the epoch and the record that accepted it, and the encoded mutation."""

    index: bytes
    epoch: int
    sequence: int
    mutation: bytes


def encode_rows(rows: Sequence[SnapshotRow]) -> bytes:
    """Encode a chunk of 1 to 256 current entries."""
    return encode([[row.index, row.epoch, row.sequence, row.mutation] for row in rows])


def decode_rows(data: bytes) -> list[SnapshotRow]:
    what = "snapshot entries"
    rows = []
    for value in take_array(decode(data, what), what, 1, MAX_ROWS):
        index, epoch, sequence, mutation = take_array(value, what, 4)
        rows.append(
            SnapshotRow(
                take_bytes(index, f"{what} index", INDEX_LENGTH),
                take_uint(epoch, f"{what} epoch", 1),
                take_uint(sequence, f"{what} sequence"),
                take_bytes(mutation, f"{what} mutation", 1, MAX_MUTATION),
            )
        )
    return rows
