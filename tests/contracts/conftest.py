"""The server that the contracts of the log are asked of.

It is the embedded node, or the one whose connection string stands in ``KT_TEST_ESDB``: that is how to
check that a real EventStoreDB or KurrentDB gives the same answers. Every test uses streams of its own.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from esdbclient import EventStoreDBClient

from tests.contracts.nodes import NodeProcess


@pytest.fixture(scope="session")
def esdb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    given = os.environ.get("KT_TEST_ESDB")
    if given:
        yield given
        return
    with NodeProcess(tmp_path_factory.mktemp("node")) as node:
        yield node.uri


@pytest.fixture
def esdb(esdb_uri: str) -> Iterator[EventStoreDBClient]:
    with EventStoreDBClient(esdb_uri) as client:
        yield client


@pytest.fixture
def name() -> str:
    """A stream that no other test uses."""
    return f"contract-{uuid.uuid4().hex}"
