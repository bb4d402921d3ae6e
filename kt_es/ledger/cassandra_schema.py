"""The schema of a shared store: making it, and checking whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from kt_es.errors import ConfigError, MalformedError
from kt_es.formats import codec
from kt_es.ledger.cassandra_session import CassandraSession
from kt_es.ledger.cassandra_settings import CassandraSettings
from kt_es.ledger.cassandra_tables import ABOUT, PARTITIONS, Table
from kt_es.ledger.store import Store

SCHEMA = 1
"""Version of the tables and of their keys. A store with another one is not used."""
REPLICAS = 3
"""Replicas of a new keyspace: one of three nodes may be away."""
DIRECTORY = b"directory"
"""Key of the row that says whose the store is: u64 schema version, CBOR [schema version, origin]."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What ``create_schema`` found and made.

    Attributes:
        replication: Replicas by datacenter, as they now are.
        made: The names of the keyspace and the tables that did not exist before.
    """

    replication: Mapping[str, int]
    made: tuple[str, ...]


def create_schema(settings: CassandraSettings, replication: Mapping[str, int] | int | None = None) -> Schema:
    """Make the keyspace and the tables that do not exist yet. Nothing that exists is changed.

    Args:
        replication: Replicas in each datacenter; a number is for the connected datacenter alone. None is for
            the replicas that the keyspace has, and for ``REPLICAS`` in a new one.

    Raises:
        ConfigError: The cluster has no such datacenter or too few nodes in it, or the keyspace exists and has
            other replicas.
        UnavailableError: The cluster cannot be reached.
    """
    keyspace = settings.keyspace
    with closing(CassandraSession(settings)) as session:
        nodes = session.datacenters()
        made: list[str] = []
        found = _replication(session, keyspace)
        given = found or REPLICAS if replication is None else replication
        wanted = {session.datacenter: given} if isinstance(given, int) else dict(given)
        if found and found != wanted:
            raise ConfigError(
                f"the keyspace {keyspace} exists with replicas {_counts(found)}, not {_counts(wanted)}: "
                "leave out --replication, or change the keyspace with ALTER KEYSPACE and nodetool repair"
            )
        if not found:
            _check_nodes(wanted, nodes)
            copies = "".join(f", '{name}': {count}" for name, count in wanted.items())
            session.execute(
                f"CREATE KEYSPACE IF NOT EXISTS {keyspace}"
                f" WITH replication = {{'class': 'NetworkTopologyStrategy'{copies}}}"
            )
            made.append(keyspace)
        query = f"SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{keyspace}'"
        present = {name for (name,) in session.execute(query).rows}
        for table in (Table(family, keyspace) for family in PARTITIONS):
            if table.name not in present:
                session.execute(table.create)
                made.append(table.path)
        return Schema(wanted, tuple(made))


def _replication(session: CassandraSession, keyspace: str) -> dict[str, int]:
    """Return the replicas of an existing keyspace by datacenter; empty if it does not exist."""
    query = f"SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = '{keyspace}'"
    rows = session.execute(query).rows
    return {name: int(count) for name, count in rows[0][0].items() if name != "class"} if rows else {}


def _counts(replication: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={count}" for name, count in replication.items())


def _check_nodes(replication: Mapping[str, int], nodes: Mapping[str, int]) -> None:
    for name, count in replication.items():
        if name not in nodes:
            raise ConfigError(
                f"the cluster has no datacenter {name!r}; it has {', '.join(nodes)}: choose the replication "
                "by these names"
            )
        if count > nodes[name]:
            raise ConfigError(
                f"{count} replicas need {count} nodes, and the datacenter {name!r} has {nodes[name]}: add "
                "nodes, or choose fewer replicas with --replication"
            )


def write_about(store: Store, origin: str) -> bool:
    """Note that ``store`` belongs to ``origin``. Return False if it is noted already.

    Raises:
        ConfigError: The store belongs to another directory, or has tables of another version.
    """
    is_new = _about(store) is None
    if is_new:
        row = SCHEMA.to_bytes(8) + codec.encode([SCHEMA, origin])
        store.write([(ABOUT, DIRECTORY, row)])
    check_about(store, origin)
    return is_new


def check_about(store: Store, origin: str) -> None:
    """Raise ``ConfigError`` unless ``store`` was made for ``origin`` with the tables of this version."""
    about = _about(store)
    if about is None:
        raise ConfigError("the shared store has tables and belongs to no directory yet: run kt store init")
    schema, found = about
    if schema != SCHEMA:
        raise ConfigError(
            f"the shared store has tables of version {schema}, and this program uses version {SCHEMA}: use "
            "the version of kt-es that made them, or another keyspace in [store] shared"
        )
    if found != origin:
        raise ConfigError(
            f"the shared store belongs to {found}, not to {origin}: name another keyspace in [store] shared"
        )


def _about(store: Store) -> tuple[int, str] | None:
    """Return schema version and origin; the origin is empty under another schema version."""
    row = store.get_many(ABOUT, [DIRECTORY], again=True)[0]
    if row is None:
        return None
    try:
        items = codec.take_array(codec.decode(row[8:], "about"), "about", 1, 16)
        schema = codec.take_uint(items[0], "about schema")
        if schema != SCHEMA:
            return schema, ""
        return schema, codec.take_text(codec.take_array(items, "about", 2)[1], "about origin", 1, 255)
    except MalformedError as error:
        raise ConfigError(f"the row about/directory of the shared store is damaged: {error}") from None
