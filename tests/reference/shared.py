"""Fixtures with a shared store in real Cassandra; ``tests.reference.cassandra`` says when it is skipped."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from kt_es.ledger.cassandra_settings import CassandraSettings
from kt_es.ledger.cassandra_tables import PARTITIONS, Table
from tests.reference.cassandra import ContactPoints, connected

if TYPE_CHECKING:
    from kt_es.ledger.cassandra import CassandraStore


def settings_at(cassandra: ContactPoints, keyspace: str) -> CassandraSettings:
    return CassandraSettings(cassandra.addresses, keyspace, cassandra.port)


@pytest.fixture(scope="session")
def shared_settings(cassandra: ContactPoints) -> Iterator[CassandraSettings]:
    """A keyspace with all tables, of this worker alone. It belongs to no directory."""
    from kt_es.ledger.cassandra_schema import create_schema

    settings = settings_at(cassandra, f"kt_{secrets.token_hex(8)}")
    create_schema(settings, 1)
    yield settings
    with connected(cassandra.addresses, cassandra.port) as session:
        session.execute(f"DROP KEYSPACE {settings.keyspace}")


@pytest.fixture
def shared_store(shared_settings: CassandraSettings) -> Iterator[CassandraStore]:
    """A store over ``shared_settings`` whose tables are empty."""
    from cassandra.query import SimpleStatement

    from kt_es.ledger.cassandra import CassandraStore
    from kt_es.ledger.cassandra_session import CassandraSession

    with closing(CassandraSession(shared_settings)) as session:
        tables = [Table(family, shared_settings.keyspace) for family in PARTITIONS]
        for _ in session.execute_all([SimpleStatement(f"TRUNCATE {table.path}") for table in tables]):
            pass
    with closing(CassandraStore.connect(shared_settings)) as store:
        yield store
