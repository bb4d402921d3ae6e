"""Opening the store of a process: a directory on its disk, or a shared store with a small store beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kt_es.errors import KtError, StoreAwayError, UnavailableError
from kt_es.formats.entries import PublicKey
from kt_es.ledger.cassandra_settings import CassandraSettings
from kt_es.ledger.connecting import ConnectingStore
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.pages import CACHE_BYTES
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.shared_store import LOCAL, SharedStore
from kt_es.ledger.store import Store
from kt_es.ledger.tables import FAMILIES
from kt_es.process.outage import Outage, patiently


@dataclass(frozen=True, slots=True)
class Sharing:
    """A shared store and the memory for its rows.

    Attributes:
        origin: The directory that the store must be of.
        cache: Bytes of pages in memory; entries and nodes take a quarter of it beside them.
    """

    cassandra: CassandraSettings
    origin: str
    cache: int


def open_store(data: Path | None, sharing: Sharing | None, *, answers: bool = False) -> Store:
    """Open the store in the directory ``data``, or the shared store with the process's own state in ``data``.

    Without ``data`` a process keeps its state in memory, and begins with the newest epoch at each start.

    Args:
        answers: A client waits for each read, so an attempt to reach the shared store is given up sooner.
            A shared store that cannot be reached now is no error: it is connected at its first use.

    Raises:
        StoreAwayError: The shared store cannot be reached. Only without ``answers``.
        ConfigError, LockedError, DivergenceError, DiskFullError: As ``RocksStore.open`` does, or the shared
            store is another directory's or was never made.
    """
    local: Store = MemoryStore(LOCAL) if data is None else RocksStore.open(data, FAMILIES)
    if sharing is None:
        return local
    try:
        return _shared(local, sharing, answers=answers)
    except BaseException:
        local.close()
        raise


def _shared(local: Store, sharing: Sharing, *, answers: bool) -> SharedStore:
    # The driver is an extra.
    from kt_es.ledger.cassandra import CassandraStore
    from kt_es.ledger.cassandra_schema import check_about
    from kt_es.ledger.cassandra_session import PATIENCE, READER_PATIENCE

    def connect() -> Store:
        store = CassandraStore.connect(sharing.cassandra, READER_PATIENCE if answers else PATIENCE)
        try:
            check_about(store, sharing.origin)
        except BaseException:
            store.close()
            raise
        return store

    remote = ConnectingStore(connect)
    try:
        remote.connected()
    except UnavailableError as error:
        if not answers:
            raise StoreAwayError(str(error)) from None
    return SharedStore(local, remote, sharing.cache // 4)


@contextmanager
def opened_ledger(
    data: Path | None,
    sharing: Sharing | None,
    origin: str,
    pinned: PublicKey,
    *,
    stop: threading.Event,
    outage: Outage,
    on_failure: Callable[[KtError], None] = lambda _: None,
    answers: bool = False,
) -> Iterator[Ledger | None]:
    """Open a store as ``open_store`` does, and yield the ledger over it; close the store at the end.

    Outages are waited out as by ``patiently``. If ``stop`` came first, None is yielded.
    """
    opening = partial(open_store, data, sharing, answers=answers)
    store = patiently(opening, stop, outage, on_failure)
    if store is None:
        yield None
        return
    with closing(store):
        cache = CACHE_BYTES if sharing is None else sharing.cache
        making = partial(Ledger, store, origin, pinned, cache_bytes=cache)
        yield patiently(making, stop, outage, on_failure)
