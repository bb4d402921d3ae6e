"""The shared store of ``kt.toml`` for a command: opened at the newest epoch of the event log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kt_es.config.settings import FILE_NAME, Settings
from kt_es.errors import ConfigError
from kt_es.eventstore.streams import EventLog
from kt_es.ledger.adoption import Adoption
from kt_es.ledger.cassandra_settings import EXAMPLE
from kt_es.ledger.ledger import Ledger, check_pinned
from kt_es.ledger.store import Store
from kt_es.ledger.stores import Sharing, open_store
from kt_es.ledger.tables import Tables

if TYPE_CHECKING:
    from kt_es.ledger.cassandra_schema import Schema


def required_sharing(settings: Settings) -> Sharing:
    """Return the shared store of ``settings``; ``ConfigError`` if there is none."""
    sharing = settings.sharing
    if sharing is None:
        raise ConfigError(
            f'{settings.base / FILE_NAME} names no shared store: add [store] with shared = "{EXAMPLE}", or '
            "name a data directory"
        )
    return sharing


def make_store(sharing: Sharing, replication: Mapping[str, int] | int | None = None) -> tuple[Schema, bool]:
    """Make what is missing: the keyspace, its tables, and the row that names the directory.

    Returns:
        The keyspace and its tables, and whether the row was missing.

    Raises what ``create_schema`` and ``write_about`` raise.
    """
    # The driver is an extra, and the settings were not read without it.
    from kt_es.ledger.cassandra import CassandraStore
    from kt_es.ledger.cassandra_schema import create_schema, write_about

    schema = create_schema(sharing.cassandra, replication)
    with closing(CassandraStore.connect(sharing.cassandra)) as store:
        return schema, write_about(store, sharing.origin)


def require_map(store: Store, data: Path, settings: Settings, mend: str) -> None:
    """Raise ``ConfigError`` if the process of the directory ``data`` has its map in a shared store.

    ``mend`` ends the message if ``settings`` name the shared store.
    """
    if Tables(store).heads.are_elsewhere:
        if settings.sharing is None:
            mend = f"name the store in kt.toml ([store] shared), then {mend}"
        raise ConfigError(
            f"{data} has only the last state and the last head of its process, and the map is in a shared "
            f"store: {mend}"
        )


@contextmanager
def shared_ledger(settings: Settings, log: EventLog) -> Iterator[Ledger]:
    """Open the shared store of ``settings``, and adopt the newest epoch that ``log`` has.

    Raises what ``required_sharing``, ``open_store`` and ``Adoption`` raise.
    """
    sharing = required_sharing(settings)
    with closing(open_store(None, sharing)) as store:
        ledger = Ledger(store, settings.origin, settings.pinned, cache_bytes=sharing.cache)
        for _ in Adoption(log, settings.names, ledger).jump():
            check_pinned(ledger)
        yield ledger
