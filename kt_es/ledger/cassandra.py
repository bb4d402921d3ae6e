"""The store that many processes share: Apache Cassandra, by way of cassandra-driver.

A read asks one replica. A read with ``again`` and a scan ask a majority of the replicas in the datacenter,
and a write waits for a majority. So a read with ``again`` and a scan see every write that returned before.
Another read may miss such a write: a caller that misses a row reads with ``again``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cassandra.query import BatchStatement, BatchType, BoundStatement, Statement

from kt_es.ledger.cassandra_session import PATIENCE, CassandraSession
from kt_es.ledger.cassandra_settings import CassandraSettings
from kt_es.ledger.cassandra_tables import ABOUT, NEWEST_FIRST, PARTITIONS, Table
from kt_es.ledger.store import Change, Store, after_prefix

KEYS = 50
"""Keys in one statement that reads."""
ROWS = 50
"""Rows in one statement that writes."""
BATCH_BYTES = 32 << 10
"""Bytes in one statement that writes more than one row. A node refuses 50 KiB by default."""
FIRST_ROWS = 4
SCAN_ROWS = 500
"""Rows of the first and of each further step of a scan, which are in memory at the same time."""


class CassandraStore(Store):
    """A keyspace with the promises of ``store.Store`` for a shared store.

    A deleted row does not come back: see ``cassandra_tables.Table``. A row of the family ``about`` cannot be
    deleted. ``sync`` makes no difference. ``is_full`` is always False, since the operator of the cluster
    watches its disks.
    """

    def __init__(self, session: CassandraSession) -> None:
        """Take over an open session. Use ``CassandraStore.connect``."""
        self._session: CassandraSession | None = session
        self._tables = {family: Table(family, session.settings.keyspace) for family in PARTITIONS}

    @classmethod
    def connect(cls, settings: CassandraSettings, patience: float = PATIENCE) -> CassandraStore:
        """Connect to the cluster. If the keyspace does not exist, the first read or write fails.

        Args:
            patience: Seconds after the first failed attempt of a statement until no further attempt begins.

        Raises:
            UnavailableError: No contact point answers. The call may be repeated.
            ConfigError: The cluster refuses the user, or has no such datacenter; or a TLS file is unusable.
        """
        return cls(CassandraSession(settings, patience))

    @property
    def is_shared(self) -> bool:
        return True

    def get(self, family: str, key: bytes) -> bytes | None:
        return self.get_many(family, [key])[0]

    def get_many(self, family: str, keys: Sequence[bytes], *, again: bool = False) -> list[bytes | None]:
        session, table = self._opened(), self.table(family)
        found: dict[bytes, bytes] = {}
        wanted = list(dict.fromkeys(keys))
        if family == NEWEST_FIRST and len(wanted) > 1:
            wanted = self._newest(session, table, wanted, found, one=not again)
        if len(wanted) == 1:
            rows, _ = session.execute(session.bound(table.select_one, table.split(wanted[0])), one=not again)
            found.update((wanted[0], value) for (value,) in rows)
        else:
            groups = [(b"", wanted)] if table.partition is None else _by_partition(table, wanted).items()
            reads = [(part, some) for part, all_ in groups for some in _slices(all_, KEYS)]
            statements = (
                session.bound(table.select_in, [*([part] if part else ()), _list(some)])
                for part, some in reads
            )
            for (part, _), result in zip(reads, session.execute_all(statements, one=not again), strict=True):
                found.update((part + rest, value) for rest, value in result)
        return [found.get(key) for key in keys]

    def _newest(
        self,
        session: CassandraSession,
        table: Table,
        keys: Sequence[bytes],
        found: dict[bytes, bytes],
        *,
        one: bool,
    ) -> list[bytes]:
        """Find those of ``keys`` that are the newest of their partitions; return the other keys.

        A key that is newer than the newest row of its partition does not exist, and is not returned.
        """
        newest: dict[bytes, bytes] = {}
        partitions = list(_by_partition(table, keys))
        statements = (session.bound(table.select_newest, [_list(some)]) for some in _slices(partitions, KEYS))
        for rows in session.execute_all(statements, one=one):
            for part, rest, value in rows:
                newest[part] = rest
                found[part + rest] = value
        return [key for key in keys if key[table.partition :] < newest.get(key[: table.partition], b"")]

    def scan(
        self, family: str, prefix: bytes = b"", *, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield rows as ``store.Store.scan`` says.

        ``prefix`` is at least as long as a partition, or empty. With an empty prefix the order is that of the
        cluster, and there is no ``start`` and no ``reverse``.
        """
        session, table = self._opened(), self.table(family)
        if not prefix:
            if start is not None or reverse:
                raise ValueError(f"a scan of all {family} in a shared store has no order: give a prefix")
            statement = session.bound(table.select_all, [])
        elif table.partition is None or len(prefix) < table.partition:
            raise ValueError(f"a scan of {family} in a shared store needs a prefix as long as the partition")
        else:
            bounds = _bounds(table, prefix, start, reverse)
            if bounds is None:
                return
            until, values = bounds
            statement = session.bound(table.select_range(until, reverse=reverse), values)
        page = None
        statement.fetch_size = FIRST_ROWS
        while True:
            rows, page = self._opened().execute(statement, page=page)
            for *key, value in rows:
                yield b"".join(key), value
            if page is None:
                return
            statement.fetch_size = SCAN_ROWS

    def write(self, changes: Iterable[Change], sync: bool = True) -> None:
        session = self._opened()
        last: dict[tuple[str, bytes], bytes | None] = {}
        for family, key, value in changes:
            self.table(family)
            last[family, key] = value
        for _ in session.execute_all(self._batches(session, last)):
            pass

    def _batches(
        self, session: CassandraSession, changes: Mapping[tuple[str, bytes], bytes | None]
    ) -> Iterator[Statement]:
        """Yield statements that make ``changes``, with rows of one partition together."""
        partitions: defaultdict[tuple[str, bytes], list[tuple[int, BoundStatement]]] = defaultdict(list)
        for (family, key), value in changes.items():
            size = len(key) + len(value or b"")
            statement = self._change(session, self._tables[family], key, value)
            partitions[family, statement.values[0]].append((size, statement))
        batch: list[BoundStatement] = []
        total = 0
        for statements in partitions.values():
            for size, statement in statements:
                if batch and (len(batch) == ROWS or total + size > BATCH_BYTES):
                    yield _batch(batch)
                    batch, total = [], 0
                batch.append(statement)
                total += size
        if batch:
            yield _batch(batch)

    def _change(
        self, session: CassandraSession, table: Table, key: bytes, value: bytes | None
    ) -> BoundStatement:
        if table.family == ABOUT:
            if value is None or len(value) < 8:
                raise ValueError(
                    f"a row of {ABOUT} cannot be deleted, and its value begins with 8 bytes of time"
                )
            return session.bound(table.insert, [key, value, value[:8]])
        if value is None:
            return session.bound(table.delete, table.split(key))
        return session.bound(table.insert, [*table.split(key), value])

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _opened(self) -> CassandraSession:
        if self._session is None:
            raise ValueError("the shared store is closed")
        return self._session

    def table(self, family: str) -> Table:
        """Return the table of ``family``; ``ValueError`` if there is none."""
        try:
            return self._tables[family]
        except KeyError:
            raise ValueError(f"the shared store has no family {family!r}") from None


def _bounds(
    table: Table, prefix: bytes, start: bytes | None, reverse: bool
) -> tuple[str, list[bytes]] | None:
    """Return the operator of the upper bound and the values for ``Table.select_range``; None for no rows."""
    part, low = table.split(prefix)
    high, until = after_prefix(low), "<"
    if start is not None and start < prefix and reverse:
        return None
    if start is not None and start > prefix:
        # Otherwise ``start`` lies behind the whole partition.
        if start.startswith(part):
            rest = start[len(part) :]
            if not reverse:
                low = rest
            elif high is None or rest < high:
                high, until = rest, "<="
        elif not reverse:
            return None
    return (until, [part, low, high]) if high is not None else ("", [part, low])


def _by_partition(table: Table, keys: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    """Return the rests of ``keys`` by their partitions."""
    partitions: dict[bytes, list[bytes]] = {}
    for key in keys:
        part, rest = table.split(key)
        partitions.setdefault(part, []).append(rest)
    return partitions


def _slices(items: Sequence[bytes], most: int) -> Iterator[Sequence[bytes]]:
    return (items[at : at + most] for at in range(0, len(items), most))


def _list(items: Sequence[bytes]) -> bytes:
    """Encode a list of blobs (native protocol version 4, section 6.11)."""
    return b"".join(
        (len(items).to_bytes(4), *(part for item in items for part in (len(item).to_bytes(4), item)))
    )


def _batch(statements: Sequence[BoundStatement]) -> Statement:
    if len(statements) == 1:
        return statements[0]
    batch = BatchStatement(BatchType.UNLOGGED)
    for statement in statements:
        batch.add(statement)
    batch.is_idempotent = True
    return batch
