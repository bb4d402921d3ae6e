"""The tables of the shared store, and the statements (CQL) that read and write them.

Each family of the ledger has a table. The leading bytes of a key are its partition, which places a row on
nodes of the cluster; the rest orders the rows within the partition.

| family   | partition                            | row in the partition              | value       |
|----------|--------------------------------------|-----------------------------------|-------------|
| pages    | key: the whole key                   |                                   | page        |
| entries  | map_index: 32 bytes                  | version, the newest first         | entry       |
| nodes    | block: log, level, offset / 256      | place: the rest of the offset     | hash        |
| heads    | epoch: the whole key                 |                                   | head        |
| configs  | prefix: 7 bytes                      | place                             | config      |
| erasures | map_index: 32 bytes                  | erased                            | record      |
| states   | epoch: 8 bytes                       | head_hash                         | state       |
| replaced | epoch: 8 bytes                       | page                              | pages       |
| decisions| entry_hash: 32 bytes                 | record                            | decision    |
| about    | key: the whole key                   |                                   | value       |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

PARTITIONS: Mapping[str, int | None] = {
    "pages": None,
    "entries": 32,
    "nodes": 9,
    "heads": None,
    "configs": 7,
    "erasures": 32,
    "states": 8,
    "replaced": 8,
    "decisions": 32,
    "about": None,
}
"""How many leading bytes of a family's keys are the partition; None for the whole key."""

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "pages": ("key", "page"),
    "entries": ("map_index", "version", "entry"),
    "nodes": ("block", "place", "hash"),
    "heads": ("epoch", "head"),
    "configs": ("prefix", "place", "config"),
    "erasures": ("map_index", "erased", "record"),
    "states": ("epoch", "head_hash", "state"),
    "replaced": ("epoch", "page", "pages"),
    "decisions": ("entry_hash", "record", "decision"),
    "about": ("key", "value"),
}

ABOUT = "about"
"""The one family whose rows may change. The first 8 bytes of a value are its time, and the largest wins."""
NEWEST_FIRST = "entries"
"""The family of which nearly always the last row of a partition is wanted."""

# Rows are read one by one under keys that have no order, so little is read for each: 4 KiB. Every row stands
# in one file of a table, which its filter finds, so there is no gain in merging more. Nothing expires.
_OPTIONS = (
    "compression = {'class': 'LZ4Compressor', 'chunk_length_in_kb': 4}"
    " AND compaction = {'class': 'SizeTieredCompactionStrategy'}"
    " AND gc_grace_seconds = 864000 AND default_time_to_live = 0"
)


@dataclass(frozen=True)
class Table:
    """The table of one family in one keyspace. ``partition`` is the number of bytes as in ``PARTITIONS``.

    Rows never change: equal keys have equal values. So each insertion has time 1 and each deletion time 2,
    whatever the clocks of clients and nodes show. A repeated insertion changes nothing, a delayed one cannot
    undo a deletion, and a deleted row does not come back.
    """

    family: str
    keyspace: str

    @cached_property
    def partition(self) -> int | None:
        return PARTITIONS[self.family]

    @cached_property
    def keys(self) -> Sequence[str]:
        """The columns of the key."""
        return _COLUMNS[self.family][:-1]

    @cached_property
    def value(self) -> str:
        return _COLUMNS[self.family][-1]

    @cached_property
    def name(self) -> str:
        """The name of the table, without the keyspace. ``entries`` alone is a word of CQL."""
        return "map_entries" if self.family == "entries" else self.family

    @cached_property
    def path(self) -> str:
        return f"{self.keyspace}.{self.name}"

    def split(self, key: bytes) -> list[bytes]:
        """Return the values of the key's columns."""
        if self.partition is None:
            return [key]
        if len(key) < self.partition:
            raise ValueError(
                f"{key.hex()} is no key of {self.family}: it has less than {self.partition} bytes"
            )
        return [key[: self.partition], key[self.partition :]]

    @cached_property
    def create(self) -> str:
        columns = ", ".join(f"{column} blob" for column in _COLUMNS[self.family])
        order = f"CLUSTERING ORDER BY ({self.keys[1]} DESC) AND " if self.family == NEWEST_FIRST else ""
        return (
            f"CREATE TABLE IF NOT EXISTS {self.path} ({columns}, PRIMARY KEY ({', '.join(self.keys)}))"
            f" WITH {order}{_OPTIONS}"
        )

    @cached_property
    def insert(self) -> str:
        names = ", ".join(_COLUMNS[self.family])
        marks = ", ".join("?" for _ in _COLUMNS[self.family])
        time = "?" if self.family == ABOUT else "1"
        return f"INSERT INTO {self.path} ({names}) VALUES ({marks}) USING TIMESTAMP {time}"

    @cached_property
    def delete(self) -> str:
        key = " AND ".join(f"{column} = ?" for column in self.keys)
        return f"DELETE FROM {self.path} USING TIMESTAMP 2 WHERE {key}"

    @cached_property
    def select_one(self) -> str:
        key = " AND ".join(f"{column} = ?" for column in self.keys)
        return f"SELECT {self.value} FROM {self.path} WHERE {key}"

    @cached_property
    def select_in(self) -> str:
        """Rows of one partition by the rest of their keys, or of many partitions that are whole keys."""
        *partition, last = self.keys
        fixed = "".join(f"{column} = ? AND " for column in partition)
        return f"SELECT {last}, {self.value} FROM {self.path} WHERE {fixed}{last} IN ?"

    @cached_property
    def select_newest(self) -> str:
        """The first row of each of many partitions."""
        return f"{self.select_all} WHERE {self.keys[0]} IN ? PER PARTITION LIMIT 1"

    def select_range(self, until: str, *, reverse: bool) -> str:
        """Return rows of one partition in order. ``until`` is ``<``, ``<=`` or empty for an open end."""
        partition, rest = self.keys
        end = f" AND {rest} {until} ?" if until else ""
        order = "DESC" if reverse else "ASC"
        return f"{self.select_all} WHERE {partition} = ? AND {rest} >= ?{end} ORDER BY {rest} {order}"

    @cached_property
    def select_all(self) -> str:
        return f"SELECT {', '.join(_COLUMNS[self.family])} FROM {self.path}"
